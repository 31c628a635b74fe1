/* A softmax over a large vocabulary, a tile of logits at a time: what each row has seen so far, and shares of it.
 *
 * A tile is [rows, columns], rows side by side; `first` is the token of its first column. The caller, tiles.py, owns all
 * memory and makes the matrix products. A row is one thread's, so that every sum has one order.
 */
#include "vectors.h"

#define SHARED _Pragma("omp parallel for schedule(static) num_threads(threads)")

typedef struct {
    double total;    /* sum of exp(x - top) */
    double weighted; /* sum of exp(x - top) (x - top) */
    float top, chosen;
} Seen;

/* The last vector of a row may stand out of it. */
static inline void put(float *p, vec v, int64_t count) { memcpy(p, &v, 4 * least(count, LANES)); }

static float largest(const float *row, int64_t columns, float scale) {
    vec top = splat(-INFINITY);
    for (int64_t i = 0; i < columns; i += LANES) top = larger(some(row + i, columns - i) * scale, top);
    float found = -INFINITY;
    for (int i = 0; i < LANES; i++) found = top[i] > found ? top[i] : found;
    return found;
}

/* Takes a tile in. With `shrunk`, logits become exp(x - top), and shrunk[row] is what all before has to be multiplied
 * by, as a new top was found. */
void observe(float *logits, int64_t rows, int64_t columns, int64_t first, float scale, const int64_t *targets, Seen *seen,
             float *shrunk, int threads) {
    SHARED for (int64_t r = 0; r < rows; r++) {
        float *row = logits + r * columns;
        Seen *of = seen + r;
        float top = largest(row, columns, scale);
        top = top > of->top ? top : of->top;
        if (targets[r] >= first && targets[r] < first + columns) of->chosen = row[targets[r] - first] * scale;
        float less = of->total == 0 ? 0 : of->top - top, factor = expf(less);
        /* Where every logit is -inf yet, there is nothing to be less than. */
        vec sums = splat(0), weights = splat(0), base = splat(isinf(top) && top < 0 ? 0 : top);
        for (int64_t i = 0; i < columns; i += LANES) {
            vec x = some(row + i, columns - i) * scale - base, share = share_of(x);
            sums += share;
            weights += (vec)((ivec)(share * x) & ~(x < -87.0f));
            if (shrunk) put(row + i, share, columns - i);
        }
        of->weighted = factor * (of->weighted + of->total * less) + sum_of(weights);
        of->total = factor * of->total + sum_of(sums);
        of->top = top;
        if (shrunk) shrunk[r] = factor;
    }
}

/* A tile of logits becomes pull (1 at the target - softmax): the gradient of the pulled logprobs by x. */
void pulled(float *logits, int64_t rows, int64_t columns, int64_t first, float scale, const int64_t *targets,
            const Seen *seen, const float *pull, int threads) {
    SHARED for (int64_t r = 0; r < rows; r++) {
        float *row = logits + r * columns;
        float base = seen[r].top + (float)log(seen[r].total);
        for (int64_t i = 0; i < columns; i += LANES)
            put(row + i, share_of(some(row + i, columns - i) * scale - base) * -pull[r], columns - i);
        if (targets[r] >= first && targets[r] < first + columns) row[targets[r] - first] += pull[r];
    }
}
