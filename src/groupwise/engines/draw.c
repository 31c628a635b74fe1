/* The next token of each row: the one in whose share of exp(logits / temperature) a uniform number falls.
 *
 * Nothing is kept but sums: what is needed of the shares is computed again. The caller, drawing.py, owns all memory.
 */
#include "../models/vectors.h"

#define BLOCK 512

/* exp(x / temperature - top) of up to a block of logits, 0 where that is too small to be a number, and its sum. */
static float shares_of(const float *logits, int64_t count, float temperature, float top, float *shares) {
    vec sums = splat(0);
    for (int64_t i = 0; i < count; i += LANES) {
        vec x = some(logits + i, count - i);
        x = x / temperature - top;
        vec share = share_of(x);
        store(shares + i, share);
        sums += share;
    }
    return sum_of(sums);
}

static float largest(const float *logits, int64_t count, float temperature) {
    vec top = splat(-INFINITY);
    for (int64_t i = 0; i < count; i += LANES) top = larger(some(logits + i, count - i) / temperature, top);
    float found = -INFINITY;
    for (int i = 0; i < LANES; i++) found = top[i] > found ? top[i] : found;
    return found;
}

/* Rows whose token is one of `ends` have ended at `column`, unless they had before. Returns how many. */
int64_t draw(const float *logits, int64_t stride, const float *uniforms, float temperature, int64_t rows,
             int64_t vocabulary, int64_t *tokens, float *logprobs, const int64_t *ends, int64_t end_count, int64_t column,
             int64_t *ended_at, int threads) {
    int64_t ended = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : ended)
    for (int64_t row = 0; row < rows; row++) {
        const float *of = logits + row * stride;
        float shares[BLOCK], top = largest(of, vocabulary, temperature);
        double total = 0, passed = 0;
        for (int64_t at = 0; at < vocabulary; at += BLOCK)
            total += shares_of(of + at, least(BLOCK, vocabulary - at), temperature, top, shares);
        double wanted = uniforms[row] * total;
        /* Where nothing is passed, as all is NaN, or as the single shares make a bit less than their sum: the last that
         * has a share. */
        int64_t chosen = -1, last = vocabulary - 1;
        for (int64_t at = 0; at < vocabulary && chosen < 0; at += BLOCK) {
            int64_t count = least(BLOCK, vocabulary - at);
            double with = passed + shares_of(of + at, count, temperature, top, shares);
            if (with > wanted)
                for (int64_t i = 0; i < count && chosen < 0; i++) {
                    if (shares[i] > 0) last = at + i;
                    passed += shares[i];
                    if (passed > wanted) chosen = at + i;
                }
            if (with > wanted && chosen < 0) chosen = last;
            passed = with;
        }
        tokens[row] = chosen < 0 ? last : chosen;
        logprobs[row] = (float)(of[tokens[row]] / temperature - top - log(total));
        for (int64_t i = 0; i < end_count; i++)
            if (tokens[row] == ends[i] && ended_at[row] > column) ended_at[row] = column, ended++;
    }
    return ended;
}
