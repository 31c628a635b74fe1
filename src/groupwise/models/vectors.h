/* Vectors of fp32, as wide as the processor's registers, written with GCC's extensions so that every processor has them. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

static inline vec load(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void store(float *p, vec v) { memcpy(p, &v, sizeof v); }
static inline vec splat(float x) { return x - (vec){0}; } /* 0 + x would be an addition: it turns -0 into 0 */
static inline float sum_of(vec v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}
static inline vec larger(vec a, vec b) {
    ivec which = a > b;
    return (vec)(((ivec)a & which) | ((ivec)b & ~which));
}

/* exp, to 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2] (Cephes). */
static inline vec exp_of(vec x) {
    const vec low = splat(-87.3f), high = splat(88.0f), magic = splat(12582912.0f);
    x = -larger(-high, -larger(low, x)); /* in this order NaN stays NaN */
    vec n = (x * 1.44269504088896341f + magic) - magic;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    return p * (vec)power;
}

/* exp(x), and 0 where that is too small to be a number: exp_of() ends at -87. NaN stays. */
static inline vec share_of(vec x) { return (vec)((ivec)exp_of(x) & ~(x < -87.0f)); }

/* The next of so many logits; what is missing of a vector can never be drawn. */
static inline vec some(const float *logits, int64_t count) {
    vec x = splat(-INFINITY);
    if (count >= LANES) return load(logits);
    memcpy(&x, logits, 4 * count);
    return x;
}
