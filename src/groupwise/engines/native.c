/* One decode step of a pre-norm decoder with RMSNorm, rotary positions and a gated SiLU, in fp32, for all rows at once.
 *
 * Weights, keys and values stand in *panels*, blocks of PANEL columns, [columns / PANEL][depth][PANEL], so that every
 * product here is the same small kernel: a few rows times one panel, accumulated in registers.
 *
 * Keys and values live in *pages* of PANEL tokens: [kv heads][dim][PANEL] keys, then [kv heads][dim / PANEL][PANEL]
 * [PANEL] values (token by token within a panel of dimensions), layer after layer. A prompt's pages belong to its slot
 * and are read by all of its rows together; each row has pages of its own for what it has drawn.
 *
 * The caller, pages.py and native.py, owns all memory. Nothing here allocates, and every index comes from there.
 */
#include "../models/panels.h"

#define CHUNK 8 /* rows of a slot that attend together */

typedef struct {
    const float *norm, *inward, *inward_bias, *query_norm, *key_norm, *outward, *outward_bias;
    const float *mlp_norm, *gate, *up, *gate_bias, *up_bias, *down, *down_bias;
    int64_t window; /* 0: none */
} Layer;

typedef struct {
    int64_t layers, dim, heads, kv_heads, head_dim, inner, threads;
    float eps, scale;
    const Layer *layer;
    const float *norm, *embedding, *cos, *sin; /* cos, sin: [position][head_dim] */
    const float *head, *head_bias;             /* 0: features are all that is wanted */
    int64_t known, vocabulary;                 /* rows of the embedding, and of the head */
} Model;

typedef struct {
    int64_t rows, slots, trunk_stride, branch_stride, last_position;
    const int64_t *tokens, *first_row;               /* first_row: [slots + 1] */
    const int64_t *trunk_lengths, *branch_lengths;   /* before this step */
    float *const *trunk_pages, *const *branch_pages; /* [slots][trunk_stride], [rows][branch_stride] */
    const int64_t *slot_of;                          /* [rows] */
    float *work;                                     /* see work_floats */
    float *features;                                 /* [rows][dim] */
    float *logits;                                   /* [rows][padded(vocabulary)] */
} Step;

/* All panels of a matrix, shared out over the threads of the region around it. */
static void matrix(int64_t rows, const float *x, int64_t x_stride, const float *weights, int64_t k, int64_t n, float *c,
                   int64_t c_stride, const float *bias, int onto) {
#pragma omp for schedule(static)
    for (int64_t p = 0; p < padded(n) / PANEL; p++)
        product(rows, x, x_stride, weights + p * k * PANEL, k, c + p * PANEL, c_stride, bias ? bias + p * PANEL : 0,
                onto, weights + (p + 1) * k * PANEL);
}

/* gate and up side by side, and silu(gate) * up. */
static void gated(int64_t rows, const float *x, int64_t x_stride, const Layer *layer, int64_t k, int64_t n, float *c,
                  float *scratch, int64_t stride) {
#pragma omp for schedule(static)
    for (int64_t p = 0; p < padded(n) / PANEL; p++) {
        float *gate = c + p * PANEL, *up = scratch + p * PANEL;
        const float *gates = layer->gate + p * k * PANEL, *ups = layer->up + p * k * PANEL;
        product(rows, x, x_stride, gates, k, gate, stride, layer->gate_bias ? layer->gate_bias + p * PANEL : 0, 0, ups);
        product(rows, x, x_stride, ups, k, up, stride, layer->up_bias ? layer->up_bias + p * PANEL : 0, 0,
                gates + k * PANEL);
        for (int64_t i = 0; i < rows; i++)
            for (int j = 0; j < PANEL; j += LANES) {
                vec g = load(gate + i * stride + j);
                store(gate + i * stride + j, g / (1.0f + exp_of(-g)) * load(up + i * stride + j));
            }
    }
}

static void normed(const float *x, const float *weight, float eps, int64_t n, float *out) {
    vec squares = splat(0);
    float total = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) squares += load(x + i) * load(x + i);
    for (; i < n; i++) total += x[i] * x[i];
    float factor = 1.0f / sqrtf((total + sum_of(squares)) / n + eps);
    for (i = 0; i < n; i++) out[i] = x[i] * factor * weight[i];
}

/* Rotate one head by its position, in place, as `rotate_half` does; `scale` on top. */
static void rotate(float *x, const float *cos, const float *sin, int64_t dim, float scale) {
    int64_t half = dim / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = (a * cos[i] - b * sin[i]) * scale;
        x[i + half] = (b * cos[i + half] + a * sin[i + half]) * scale;
    }
}

typedef struct {
    int64_t keys, values; /* where in a page those of one layer's head begin */
} Place;

static int64_t key_floats(const Model *m) { return m->head_dim * PANEL; }
static int64_t value_floats(const Model *m) { return padded(m->head_dim) * PANEL; }

static Place place_of(const Model *m, int64_t layer, int64_t head) {
    int64_t first = layer * m->kv_heads * (key_floats(m) + value_floats(m));
    return (Place){first + head * key_floats(m), first + m->kv_heads * key_floats(m) + head * value_floats(m)};
}

/* Put a token's key and value into its page. */
static void write_new(const Model *m, Place place, float *page, int64_t at, const float *key, const float *value) {
    float *keys = page + place.keys + at, *values = page + place.values + at * PANEL;
    for (int64_t i = 0; i < m->head_dim; i++) keys[i * PANEL] = key[i];
    for (int64_t i = 0; i < m->head_dim; i++) values[i / PANEL * PANEL * PANEL + i % PANEL] = value[i];
}

/* scores[rows][tokens] of a run of tokens in pages, rows `stride` apart. Their values come next. */
static void score(const Model *m, Place place, float *const *pages, int64_t tokens, int64_t rows, const float *queries,
                  int64_t q_stride, float *scores, int64_t stride) {
    for (int64_t t = 0; t < tokens; t += PANEL, pages++)
        product(rows, queries, q_stride, *pages + place.keys, m->head_dim, scores + t, stride, 0, 0,
                t + PANEL < tokens ? pages[1] + place.keys : pages[-t / PANEL] + place.values);
}

/* out += weights[rows][tokens] @ values. */
static void gather(const Model *m, Place place, float *const *pages, int64_t tokens, int64_t rows, const float *weights,
                   int64_t stride, float *out, int64_t out_stride) {
    for (int64_t t = 0; t < tokens; t += PANEL, pages++) {
        const float *values = *pages + place.values, *later = t + PANEL < tokens ? pages[1] + place.values : values;
        for (int64_t d = 0; d < padded(m->head_dim); d += PANEL, values += PANEL * PANEL)
            product(rows, weights + t, stride, values, least(PANEL, tokens - t), out + d, out_stride, 0, 1,
                    d + PANEL < m->head_dim ? values + PANEL * PANEL : later);
    }
}

/* What score() computes, of one token that is in no page yet. */
static float dot(const float *a, const float *b, int64_t n) {
    vec sums = splat(0);
    float rest = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) sums += load(a + i) * load(b + i);
    for (; i < n; i++) rest += a[i] * b[i];
    return rest + sum_of(sums);
}

/* exp(scores - their maximum) where a token is seen, 0 elsewhere; returns the sum. Tokens are [trunk | branch]. */
static float weigh(float *scores, int64_t trunk, int64_t branch_at, int64_t branch, int64_t hidden) {
    int64_t ends[2][2] = {{least(hidden, trunk), trunk}, {branch_at + most(hidden - trunk, 0), branch_at + branch}};
    vec top = splat(-INFINITY);
    float highest = -INFINITY, total = 0;
    for (int part = 0; part < 2; part++) {
        int64_t i = ends[part][0], to = ends[part][1];
        for (; i + LANES <= to; i += LANES) top = larger(load(scores + i), top);
        for (; i < to; i++) highest = scores[i] > highest ? scores[i] : highest;
    }
    for (int i = 0; i < LANES; i++) highest = top[i] > highest ? top[i] : highest;
    for (int part = 0; part < 2; part++) {
        int64_t start = part ? branch_at : 0, from = ends[part][0], to = ends[part][1], i = start;
        for (; i < from; i++) scores[i] = 0;
        vec sum = splat(0);
        for (; i + LANES <= to; i += LANES) {
            vec e = exp_of(load(scores + i) - highest);
            store(scores + i, e);
            sum += e;
        }
        total += sum_of(sum);
        for (; i < to; i++) total += scores[i] = exp_of(splat(scores[i] - highest))[0];
    }
    return total;
}

/* Attention of some rows of one slot through one key head. `inward` is [rows][heads + 2 * kv_heads][head_dim]:
 * queries, and the newest keys and values. Those go into their pages on the way, after the pages have been read: so far
 * apart, their places would be waited for one by one. */
static void attend(const Model *m, const Step *s, int64_t layer, int64_t slot, int64_t head, int64_t row, int64_t rows,
                   const float *inward, int64_t stride, float *out, int64_t out_stride, float *work,
                   int64_t tokens) {
    int64_t dim = m->head_dim, repeats = m->heads / m->kv_heads, wide = padded(dim), window = m->layer[layer].window;
    int64_t trunk = s->trunk_lengths[slot], branch_at = padded(trunk);
    float *q = work, *sums = q + CHUNK * repeats * dim, *scores = sums + CHUNK * repeats * wide;
    Place place = place_of(m, layer, head);
    inward += row * stride;
    for (int64_t r = 0; r < rows; r++)
        memcpy(q + r * repeats * dim, inward + r * stride + head * repeats * dim, 4 * repeats * dim);
    memset(sums, 0, 4 * rows * repeats * wide);
    float *const *trunk_pages = s->trunk_pages + slot * s->trunk_stride;
    score(m, place, trunk_pages, trunk, rows * repeats, q, dim, scores, tokens);
    for (int64_t r = 0; r < rows; r++) {
        float *const *pages = s->branch_pages + (row + r) * s->branch_stride;
        int64_t newest = s->branch_lengths[row + r], branch = newest + 1;
        int64_t hidden = window ? most(trunk + branch - window, 0) : 0;
        const float *key = inward + r * stride + (m->heads + head) * dim, *value = key + m->kv_heads * dim;
        float *own = scores + r * repeats * tokens;
        score(m, place, pages, newest, repeats, q + r * repeats * dim, dim, own + branch_at, tokens);
        write_new(m, place, pages[newest / PANEL], newest % PANEL, key, value);
        for (int64_t g = 0; g < repeats; g++) {
            float *mine = own + g * tokens;
            mine[branch_at + newest] = dot(q + (r * repeats + g) * dim, key, dim);
            float factor = 1.0f / weigh(mine, trunk, branch_at, branch, hidden);
            for (int64_t i = 0; i < trunk; i++) mine[i] *= factor;
            for (int64_t i = branch_at; i < branch_at + branch; i++) mine[i] *= factor;
        }
        gather(m, place, pages, branch, repeats, own + branch_at, tokens, sums + r * repeats * wide, wide);
    }
    gather(m, place, trunk_pages, trunk, rows * repeats, scores, tokens, sums, wide);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < repeats; g++)
            memcpy(out + (row + r) * out_stride + (head * repeats + g) * dim, sums + (r * repeats + g) * wide, 4 * dim);
}

/* Floats of `work` that one thread's attention needs, for so many tokens a row. */
static int64_t attention_floats(const Model *m, int64_t tokens) {
    return CHUNK * (m->heads / m->kv_heads) * (m->head_dim + padded(m->head_dim) + tokens);
}

static int64_t projected(const Model *m) { return (m->heads + 2 * m->kv_heads) * m->head_dim; }

/* Floats of `work` for a step of so many rows over so many tokens each, trunk and branch padded. */
int64_t work_floats(const Model *m, int64_t rows, int64_t tokens) {
    int64_t wide = 2 * padded(m->dim) + padded(projected(m)) + padded(m->heads * m->head_dim) + 2 * padded(m->inner);
    return rows * wide + m->threads * attention_floats(m, tokens);
}

extern int omp_get_thread_num(void);

/* Returns 1, and does nothing, if there is a token that the embedding has no row for. */
int64_t step(const Model *m, const Step *s, int64_t tokens) {
    for (int64_t r = 0; r < s->rows; r++)
        if (s->tokens[r] < 0 || s->tokens[r] >= m->known) return 1;
    int64_t rows = s->rows, x_at = padded(m->dim), q_at = padded(projected(m)), o_at = padded(m->heads * m->head_dim);
    int64_t i_at = padded(m->inner), dim = m->head_dim;
    float *x = s->work, *h = x + rows * x_at, *qkv = h + rows * x_at, *seen = qkv + rows * q_at;
    float *inner = seen + rows * o_at, *up = inner + rows * i_at, *attention = up + rows * i_at;
#pragma omp parallel num_threads(m->threads)
    {
#ifdef _OPENMP
        float *own = attention + omp_get_thread_num() * attention_floats(m, tokens);
#else
        float *own = attention;
#endif
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            memcpy(x + r * x_at, m->embedding + s->tokens[r] * m->dim, 4 * m->dim);
            normed(x + r * x_at, m->layer[0].norm, m->eps, m->dim, h + r * x_at);
        }
        for (int64_t l = 0; l < m->layers; l++) {
            const Layer *layer = m->layer + l;
            matrix(rows, h, x_at, layer->inward, m->dim, projected(m), qkv, q_at, layer->inward_bias, 0);
#pragma omp for schedule(static)
            for (int64_t r = 0; r < rows; r++) {
                int64_t at = s->trunk_lengths[s->slot_of[r]] + s->branch_lengths[r];
                const float *cos = m->cos + least(at, s->last_position) * dim;
                const float *sin = m->sin + least(at, s->last_position) * dim;
                float *head = qkv + r * q_at;
                for (int64_t i = 0; i < m->heads + m->kv_heads; i++, head += dim) {
                    const float *norm = i < m->heads ? layer->query_norm : layer->key_norm;
                    if (norm) normed(head, norm, m->eps, dim, head);
                    rotate(head, cos, sin, dim, i < m->heads ? m->scale : 1.0f);
                }
            }
#pragma omp for schedule(dynamic) collapse(2)
            for (int64_t slot = 0; slot < s->slots; slot++)
                for (int64_t head = 0; head < m->kv_heads; head++)
                    for (int64_t r = s->first_row[slot]; r < s->first_row[slot + 1]; r += CHUNK)
                        attend(m, s, l, slot, head, r, least(CHUNK, s->first_row[slot + 1] - r), qkv, q_at, seen, o_at,
                               own, tokens);
            matrix(rows, seen, o_at, layer->outward, m->heads * dim, m->dim, x, x_at, layer->outward_bias, 1);
#pragma omp for schedule(static)
            for (int64_t r = 0; r < rows; r++) normed(x + r * x_at, layer->mlp_norm, m->eps, m->dim, h + r * x_at);
            gated(rows, h, x_at, layer, m->dim, m->inner, inner, up, i_at);
            matrix(rows, inner, i_at, layer->down, m->inner, m->dim, x, x_at, layer->down_bias, 1);
            const float *norm = l + 1 < m->layers ? m->layer[l + 1].norm : m->norm;
#pragma omp for schedule(static)
            for (int64_t r = 0; r < rows; r++)
                normed(x + r * x_at, norm, m->eps, m->dim,
                       l + 1 < m->layers ? h + r * x_at : s->features + r * m->dim);
        }
        if (m->head)
            matrix(rows, s->features, m->dim, m->head, m->dim, m->vocabulary, s->logits, padded(m->vocabulary),
                   m->head_bias, 0);
    }
    return 0;
}
