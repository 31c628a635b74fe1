/* RMSNorm, the gated SiLU and rotary positions, forward and backward, each in one pass over fp32 rows.
 *
 * The caller, parts.py, owns all memory. Rows are shared out evenly, so that a sum over rows is the same every time.
 */
#include "vectors.h"

#define SHARED _Pragma("omp parallel for schedule(static) num_threads(threads)")

/* out = x n (w + add),  n = 1 / sqrt(mean(x^2) + eps) */
void norm_forward(const float *x, const float *weight, float add, float eps, int64_t rows, int64_t dim, float *out,
                  float *inverse, int threads) {
    SHARED for (int64_t r = 0; r < rows; r++) {
        const float *in = x + r * dim;
        float *to = out + r * dim, total = 0;
        vec squares = splat(0);
        int64_t i = 0;
        for (; i + LANES <= dim; i += LANES) squares += load(in + i) * load(in + i);
        for (; i < dim; i++) total += in[i] * in[i];
        float n = inverse[r] = 1.0f / sqrtf((total + sum_of(squares)) / dim + eps);
        for (i = 0; i + LANES <= dim; i += LANES) store(to + i, load(in + i) * n * (load(weight + i) + add));
        for (; i < dim; i++) to[i] = in[i] * n * (weight[i] + add);
    }
}

/* dx = n (g w - x n^2 mean(g w x)); each thread adds g x n into a row of its own of dw[threads][dim]. */
void norm_backward(const float *grad, const float *x, const float *weight, float add, const float *inverse,
                   int64_t rows, int64_t dim, float *dx, float *dw, int threads) {
    SHARED for (int64_t part = 0; part < threads; part++) {
        float *own = dw + part * dim;
        for (int64_t r = rows * part / threads; r < rows * (part + 1) / threads; r++) {
            const float *g = grad + r * dim, *in = x + r * dim;
            float *to = dx + r * dim, n = inverse[r], total = 0;
            vec sum = splat(0);
            int64_t i = 0;
            for (; i + LANES <= dim; i += LANES) {
                vec product = load(g + i) * load(in + i);
                sum += product * (load(weight + i) + add);
                store(own + i, load(own + i) + product * n);
            }
            for (; i < dim; i++) {
                total += g[i] * in[i] * (weight[i] + add);
                own[i] += g[i] * in[i] * n;
            }
            float pull = (total + sum_of(sum)) / dim * n * n;
            for (i = 0; i + LANES <= dim; i += LANES)
                store(to + i, (load(g + i) * (load(weight + i) + add) - load(in + i) * pull) * n);
            for (; i < dim; i++) to[i] = (g[i] * (weight[i] + add) - in[i] * pull) * n;
        }
    }
}

static inline vec tail(const float *p, int64_t count) {
    vec v = splat(0);
    memcpy(&v, p, 4 * count);
    return v;
}

#define BLOCK 4096 /* floats that a thread takes at a time */

/* out = silu(gate) up */
void gated_forward(const float *gate, const float *up, int64_t count, float *out, int threads) {
    SHARED for (int64_t start = 0; start < count; start += BLOCK) {
        int64_t end = start + BLOCK < count ? start + BLOCK : count;
        for (int64_t i = start; i < end; i += LANES) {
            int64_t here = end - i < LANES ? end - i : LANES;
            vec g = here < LANES ? tail(gate + i, here) : load(gate + i);
            vec u = here < LANES ? tail(up + i, here) : load(up + i);
            vec made = g / (1.0f + exp_of(-g)) * u;
            memcpy(out + i, &made, here < LANES ? 4 * here : sizeof made);
        }
    }
}

/* with s = sigmoid(gate):    d gate = grad up s (1 + gate (1 - s)),    d up = grad gate s */
void gated_backward(const float *grad, const float *gate, const float *up, int64_t count, float *dgate, float *dup,
                    int threads) {
    SHARED for (int64_t start = 0; start < count; start += BLOCK) {
        int64_t end = start + BLOCK < count ? start + BLOCK : count;
        for (int64_t i = start; i < end; i += LANES) {
            int64_t here = end - i < LANES ? end - i : LANES;
            vec d = here < LANES ? tail(grad + i, here) : load(grad + i);
            vec g = here < LANES ? tail(gate + i, here) : load(gate + i);
            vec u = here < LANES ? tail(up + i, here) : load(up + i);
            vec s = 1.0f / (1.0f + exp_of(-g)), made = d * u * s * (1.0f + g * (1.0f - s)), more = d * g * s;
            memcpy(dgate + i, &made, here < LANES ? 4 * here : sizeof made);
            memcpy(dup + i, &more, here < LANES ? 4 * here : sizeof more);
        }
    }
}

/* Both halves of each head, turned by the angle of its token; `back` turns the other way, which is the gradient.
 * x[tokens][heads][dim] with strides of its own, out dense, cos and sin [tokens][dim]. */
void rotate(const float *x, int64_t token_stride, int64_t head_stride, const float *cos, const float *sin, int64_t tokens,
            int64_t heads, int64_t dim, int back, float *out, int threads) {
    int64_t half = dim / 2;
    SHARED for (int64_t t = 0; t < tokens; t++) {
        const float *c = cos + t * dim, *s = sin + t * dim;
        for (int64_t h = 0; h < heads; h++) {
            const float *in = x + t * token_stride + h * head_stride;
            float *to = out + (t * heads + h) * dim;
            if (back)
                for (int64_t i = 0; i < half; i++) {
                    to[i] = in[i] * c[i] + in[i + half] * s[i + half];
                    to[i + half] = in[i + half] * c[i + half] - in[i] * s[i];
                }
            else
                for (int64_t i = 0; i < half; i++) {
                    to[i] = in[i] * c[i] - in[i + half] * s[i];
                    to[i + half] = in[i + half] * c[i + half] + in[i] * s[i + half];
                }
        }
    }
}
