/* Attention of a packed row over trunk and branch, forward and backward, in fp32 (arXiv 2205.14135, 2307.08691).
 *
 * Every line sees itself up to each token, and the whole trunk that it follows, as one softmax. Queries go block by
 * block past panels of keys; probabilities are never kept, but computed again in the backward pass, from the logsumexp.
 *
 * Jobs are runs of lines of one tree. All that the tokens of a trunk receive is added up job by job, in their order, so
 * that a gradient is the same every time. The caller, compiled_attention.py, owns all memory.
 */
#include "panels.h"

#define BLOCK 64 /* rows, of all heads that share a key head, that go past the keys together */
#define KEYS 128 /* keys that they pass at a time */
#define APART (KEYS + LANES) /* floats from row to row: a power of two would use few lines of the cache */

extern int omp_get_thread_num(void);

typedef struct {
    int64_t start, length, panel;       /* its tokens in the row, and its first panel of keys */
    int64_t trunk_length, trunk_panel;  /* what it follows: 0 keys for a trunk */
    int64_t sums, trunk_sums;           /* panels where the gradients of its keys, and of its trunk's, add up */
} Line;

typedef struct {
    int64_t lines, jobs, panels, sum_panels, heads, kv_heads, dim, threads;
    float scale;
    const Line *line;
    const int64_t *job; /* [jobs + 1]: the first line of each */
} Row;

typedef struct {
    const float *at;
    int64_t token, head; /* strides */
} Given;

static int64_t wide(const Row *row) { return padded(row->dim); }

/* All keys of a head side by side: as they are, or turned into [panel][dim][PANEL]; zeros behind each line's end. */
static void lay_out(const Row *row, Given x, float *out, int turned) {
    int64_t dim = row->dim, full = wide(row), size = PANEL * full;
#pragma omp for schedule(static) collapse(2)
    for (int64_t h = 0; h < row->kv_heads; h++)
        for (int64_t l = 0; l < row->lines; l++) {
            const Line *line = row->line + l;
            float *to = out + (h * row->panels + line->panel) * size;
            memset(to, 0, 4 * size * (padded(line->length) / PANEL));
            for (int64_t t = 0; t < line->length; t++) {
                const float *from = x.at + (line->start + t) * x.token + h * x.head;
                float *panel = to + t / PANEL * size;
                if (turned)
                    for (int64_t d = 0; d < dim; d++) panel[d * PANEL + t % PANEL] = from[d];
                else
                    memcpy(panel + t % PANEL * full, from, 4 * dim);
            }
        }
}

/* Queries, or what has their shape: [tokens x heads of the key head][wide], times a factor. */
static void take(const Row *row, Given x, int64_t head, int64_t token, int64_t tokens, float factor, float *out) {
    int64_t repeats = row->heads / row->kv_heads, dim = row->dim, full = wide(row);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t g = 0; g < repeats; g++, out += full) {
            const float *from = x.at + (token + t) * x.token + (head * repeats + g) * x.head;
            for (int64_t d = 0; d < dim; d++) out[d] = from[d] * factor;
            for (int64_t d = dim; d < full; d++) out[d] = 0;
        }
}

static void put(const Row *row, const float *rows, int64_t head, int64_t token, int64_t tokens, float *out) {
    int64_t repeats = row->heads / row->kv_heads, dim = row->dim, full = wide(row);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t g = 0; g < repeats; g++, rows += full)
            memcpy(out + ((token + t) * row->heads + head * repeats + g) * dim, rows, 4 * dim);
}

/* Queries of a block against keys of some panels: [rows][APART], as far as there are keys. */
static void against(int64_t rows, const float *q, int64_t full, int64_t dim, const float *panels, int64_t keys,
                    float *out) {
    for (int64_t k = 0; k < keys; k += PANEL, panels += PANEL * full)
        product(rows, q, full, panels, dim, out + k, APART, 0, 0, panels + PANEL * full);
}

/* out[rows][wide] += weights[rows][keys] @ x[keys][wide]. */
static void weighed(int64_t rows, const float *weights, const float *x, int64_t keys, int64_t full, float *out) {
    for (int64_t d = 0; d < full; d += PANEL)
        strided_product(rows, weights, APART, 1, x + d, full, keys, out + d, full, 0, 1, x + d + PANEL);
}

/* out[keys][wide] += weights[rows][keys], turned, @ x[rows][wide]. */
static void spread(int64_t rows, const float *weights, const float *x, int64_t keys, int64_t full, float *out) {
    for (int64_t d = 0; d < full; d += PANEL)
        strided_product(keys, weights, 1, APART, x + d, full, rows, out + d, full, 0, 1, x + d + PANEL);
}

/* How many of the keys from `first` on a row of a block sees. */
static int64_t seen_of(int causal, int64_t place, int64_t first, int64_t keys) {
    return causal ? most(0, least(keys, place + 1 - first)) : keys;
}

/* One step of a running softmax: scores become exp(score - top), zero where nothing is seen. */
static void pass(float *scores, int64_t seen, int64_t keys, float *top, float *sum, float *out, int64_t full) {
    vec highest = splat(*top);
    float high = *top, total = 0;
    int64_t i = 0;
    for (; i + LANES <= seen; i += LANES) highest = larger(load(scores + i), highest);
    for (; i < seen; i++) high = scores[i] > high ? scores[i] : high;
    for (int j = 0; j < LANES; j++) high = highest[j] > high ? highest[j] : high;
    vec sums = splat(0);
    for (i = 0; i + LANES <= seen; i += LANES) {
        vec e = exp_of(load(scores + i) - high);
        store(scores + i, e);
        sums += e;
    }
    for (; i < seen; i++) total += scores[i] = exp_of(splat(scores[i] - high))[0];
    for (; i < keys; i++) scores[i] = 0;
    if (high > *top) {
        float before = exp_of(splat(*top - high))[0];
        *sum *= before;
        for (int64_t d = 0; d < full; d += LANES) store(out + d, load(out + d) * before);
        *top = high;
    }
    *sum += total + sum_of(sums);
}

static void forward_block(const Row *row, const Line *line, int64_t head, int64_t place, int64_t tokens, Given query,
                          const float *keys, const float *values, float *out, float *lse, float *work) {
    int64_t repeats = row->heads / row->kv_heads, rows = tokens * repeats, full = wide(row), size = PANEL * full;
    float *q = work, *sums = q + rows * full, *scores = sums + rows * full, *top = scores + rows * APART;
    float *total = top + rows;
    take(row, query, head, line->start + place, tokens, row->scale, q);
    memset(sums, 0, 4 * rows * full);
    for (int64_t r = 0; r < rows; r++) top[r] = -1e30f, total[r] = 0;
    for (int causal = 0; causal < 2; causal++) {
        int64_t many = causal ? place + tokens : line->trunk_length;
        int64_t at = (head * row->panels + (causal ? line->panel : line->trunk_panel)) * size;
        for (int64_t k = 0; k < many; k += KEYS) {
            int64_t here = least(KEYS, many - k);
            against(rows, q, full, row->dim, keys + at + k * full, here, scores);
            for (int64_t r = 0; r < rows; r++)
                pass(scores + r * APART, seen_of(causal, place + r / repeats, k, here), here, top + r, total + r,
                     sums + r * full, full);
            weighed(rows, scores, values + at + k * full, here, full, sums);
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t d = 0; d < row->dim; d++) sums[r * full + d] /= total[r];
        lse[(line->start + place + r / repeats) * row->heads + head * repeats + r % repeats] = top[r] + logf(total[r]);
    }
    put(row, sums, head, line->start + place, tokens, out);
}

/* Scores become probabilities, and what comes down to a probability becomes what comes down to its score. */
static void turn(float *scores, float *down, int64_t seen, int64_t keys, float lse, float mean) {
    int64_t i = 0;
    for (; i + LANES <= seen; i += LANES) {
        vec p = exp_of(load(scores + i) - lse);
        store(scores + i, p);
        store(down + i, p * (load(down + i) - mean));
    }
    for (; i < seen; i++) {
        scores[i] = exp_of(splat(scores[i] - lse))[0];
        down[i] = scores[i] * (down[i] - mean);
    }
    for (; i < keys; i++) scores[i] = down[i] = 0;
}

typedef struct {
    const float *turned_keys, *keys, *turned_values; /* [kv heads][panels] */
    float *key_sums, *value_sums;                    /* [kv heads][sum panels][PANEL][wide] */
} Laid;

static void backward_block(const Row *row, const Line *line, int64_t head, int64_t place, int64_t tokens, Given query,
                           Given grad, Given out, const float *lse, Laid laid, float *dq, float *work) {
    int64_t repeats = row->heads / row->kv_heads, rows = tokens * repeats, full = wide(row), size = PANEL * full;
    float *q = work, *g = q + rows * full, *mine = g + rows * full, *scores = mine + rows * full;
    float *down = scores + rows * APART, *mean = down + rows * APART;
    take(row, out, head, line->start + place, tokens, 1.0f, mine);
    take(row, grad, head, line->start + place, tokens, 1.0f, g);
    take(row, query, head, line->start + place, tokens, row->scale, q);
    for (int64_t r = 0; r < rows; r++) {
        vec sum = splat(0);
        for (int64_t d = 0; d < full; d += LANES) sum += load(mine + r * full + d) * load(g + r * full + d);
        mean[r] = sum_of(sum);
    }
    memset(mine, 0, 4 * rows * full);
    for (int causal = 0; causal < 2; causal++) {
        int64_t many = causal ? place + tokens : line->trunk_length;
        int64_t at = (head * row->panels + (causal ? line->panel : line->trunk_panel)) * size;
        int64_t onto = (head * row->sum_panels + (causal ? line->sums : line->trunk_sums)) * size;
        for (int64_t k = 0; k < many; k += KEYS) {
            int64_t here = least(KEYS, many - k);
            against(rows, q, full, row->dim, laid.turned_keys + at + k * full, here, scores);
            against(rows, g, full, row->dim, laid.turned_values + at + k * full, here, down);
            for (int64_t r = 0; r < rows; r++) {
                int64_t token = place + r / repeats;
                turn(scores + r * APART, down + r * APART, seen_of(causal, token, k, here), here,
                     lse[(line->start + token) * row->heads + head * repeats + r % repeats], mean[r]);
            }
            weighed(rows, down, laid.keys + at + k * full, here, full, mine);
            spread(rows, down, q, here, full, laid.key_sums + onto + k * full);
            spread(rows, scores, g, here, full, laid.value_sums + onto + k * full);
        }
    }
    for (int64_t i = 0; i < rows * full; i++) mine[i] *= row->scale;
    put(row, mine, head, line->start + place, tokens, dq);
}

/* Sums of a line's keys, of all jobs of its tree if it is a trunk, into the row. */
static void gather(const Row *row, const int64_t *copies, const float *sums, float *out) {
    int64_t full = wide(row), dim = row->dim;
#pragma omp for schedule(static) collapse(2)
    for (int64_t h = 0; h < row->kv_heads; h++)
        for (int64_t l = 0; l < row->lines; l++) {
            const Line *line = row->line + l;
            int64_t apart = padded(line->length) * full;
            for (int64_t t = 0; t < line->length; t++) {
                float *to = out + ((line->start + t) * row->kv_heads + h) * dim;
                const float *from = sums + (h * row->sum_panels + line->sums) * PANEL * full + t * full;
                memcpy(to, from, 4 * dim);
                for (int64_t copy = 1; copy < copies[l]; copy++)
                    for (int64_t d = 0; d < dim; d++) to[d] += from[copy * apart + d];
            }
        }
}

/* Floats of `work`: for every key head's panels `laid` times, sums `summed` times, and for each thread. */
int64_t attention_floats(const Row *row, int64_t laid, int64_t summed) {
    int64_t size = PANEL * wide(row), rows = BLOCK + row->heads / row->kv_heads;
    return row->kv_heads * size * (laid * row->panels + summed * row->sum_panels)
           + row->threads * rows * (3 * wide(row) + 2 * APART + 2);
}

static float *work_of(const Row *row, float *work) {
    int64_t thread = 0, rows = BLOCK + row->heads / row->kv_heads;
#ifdef _OPENMP
    thread = omp_get_thread_num();
#endif
    return work + thread * rows * (3 * wide(row) + 2 * APART + 2);
}

static int64_t block_of(const Row *row) { return most(1, BLOCK / (row->heads / row->kv_heads)); }

/* out [tokens][heads][dim], lse [tokens][heads]. `blocks` [count][2]: a line, and a place in it. */
void attention_forward(const Row *row, const Given *query, const Given *key, const Given *value, const int64_t *blocks,
                       int64_t count, float *out, float *lse, float *work) {
    int64_t laid = row->kv_heads * row->panels * PANEL * wide(row), block = block_of(row);
    float *keys = work, *values = keys + laid;
#pragma omp parallel num_threads(row->threads)
    {
        float *own = work_of(row, values + laid);
        lay_out(row, *key, keys, 1);
        lay_out(row, *value, values, 0);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < count * row->kv_heads; i++) {
            const Line *line = row->line + blocks[i / row->kv_heads * 2];
            int64_t place = blocks[i / row->kv_heads * 2 + 1];
            forward_block(row, line, i % row->kv_heads, place, least(block, line->length - place), *query, keys, values,
                          out, lse, own);
        }
    }
}

/* Gradients, shaped [tokens][heads][dim], of the key's heads for keys and values. `copies` [lines]: how many jobs a
 * line's keys have sums of. */
void attention_backward(const Row *row, const Given *query, const Given *key, const Given *value, const Given *grad,
                        const Given *out, const float *lse, const int64_t *copies, float *dq, float *dk, float *dv,
                        float *work) {
    int64_t size = PANEL * wide(row), laid = row->kv_heads * row->panels * size, block = block_of(row);
    int64_t summed = row->kv_heads * row->sum_panels * size;
    float *sums = work + 3 * laid;
    Laid all = {work, work + laid, work + 2 * laid, sums, sums + summed};
#pragma omp parallel num_threads(row->threads)
    {
        float *own = work_of(row, sums + 2 * summed);
        lay_out(row, *key, work, 1);
        lay_out(row, *key, work + laid, 0);
        lay_out(row, *value, work + 2 * laid, 1);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < 2 * row->kv_heads * row->sum_panels; i++) memset(sums + i * size, 0, 4 * size);
#pragma omp for schedule(dynamic) collapse(2)
        for (int64_t j = 0; j < row->jobs; j++)
            for (int64_t head = 0; head < row->kv_heads; head++)
                for (const Line *line = row->line + row->job[j]; line < row->line + row->job[j + 1]; line++)
                    for (int64_t place = 0; place < line->length; place += block)
                        backward_block(row, line, head, place, least(block, line->length - place), *query, *grad, *out,
                                       lse, all, dq, own);
        gather(row, copies, all.key_sums, dk);
        gather(row, copies, all.value_sums, dv);
    }
}
