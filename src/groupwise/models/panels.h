/* Products of a few rows with a matrix that stands in *panels*, blocks of PANEL columns, accumulated in registers. */
#include "vectors.h"

#define TILE (LANES == 8 ? 6 : 8) /* rows of a product that the registers hold: AVX has half as many as AVX-512 */
#define PANEL 32
#define PARTS (PANEL / LANES)
#define AHEAD 16 /* rows that are fetched before they are needed: of a panel, then of the one that comes later */
#define UNROLL _Pragma("GCC unroll 8")

static inline int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

/* c[m][PANEL] = x[m][k] @ panel[k][PANEL], onto what is there, or onto a bias. A row of x is `x_stride` behind the one
 * before it, a column `x_step`; a row of the panel `w_stride`. `later` is the panel that is wanted after this one. */
static inline __attribute__((always_inline)) void tile(const int m, const float *restrict x, int64_t x_stride,
                                                       int64_t x_step, const float *restrict panel, int64_t w_stride,
                                                       int64_t k, float *restrict c, int64_t c_stride,
                                                       const float *restrict bias, int onto, const float *later) {
    for (int half = 0; half < PARTS; half += 2) {
        vec sum[TILE][2];
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 2; j++) {
            int64_t at = (half + j) * LANES;
            sum[i][j] = bias ? load(bias + at) : splat(0);
        }
        const float *w = panel + half * LANES, *then = later + half * LANES;
        const float *ahead = k > AHEAD ? w + AHEAD * w_stride : then;
        for (int64_t d = 0; d < k; d++, w += w_stride) {
            vec first = load(w), second = load(w + LANES);
            __builtin_prefetch(ahead);
            __builtin_prefetch(ahead + LANES);
            ahead = d == k - AHEAD - 1 ? then : ahead + w_stride;
            UNROLL for (int i = 0; i < m; i++) {
                vec one = splat(x[i * x_stride + d * x_step]);
                sum[i][0] += one * first;
                sum[i][1] += one * second;
            }
        }
        /* Last, not first: thousands of terms would each be rounded to the size of what is there. */
        if (onto)
            UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 2; j++)
                sum[i][j] += load(c + i * c_stride + (half + j) * LANES);
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < 2; j++)
            store(c + i * c_stride + (half + j) * LANES, sum[i][j]);
    }
}

/* The same for any number of rows. */
static inline __attribute__((always_inline)) void strided_product(int64_t rows, const float *x, int64_t x_stride,
                                                                  int64_t x_step, const float *panel, int64_t w_stride,
                                                                  int64_t k, float *c, int64_t c_stride,
                                                                  const float *bias, int onto, const float *later) {
    int64_t row = 0;
    for (; row + TILE <= rows; row += TILE)
        tile(TILE, x + row * x_stride, x_stride, x_step, panel, w_stride, k, c + row * c_stride, c_stride, bias, onto,
             later);
    x += row * x_stride, c += row * c_stride;
    switch (rows - row) {
#define REST(m) case m: tile(m, x, x_stride, x_step, panel, w_stride, k, c, c_stride, bias, onto, later); break;
        REST(1) REST(2) REST(3) REST(4) REST(5)
#if LANES != 8
        REST(6) REST(7)
#endif
    }
#undef REST
}

/* Of rows that are dense with a panel that is: [rows][k] @ [k][PANEL]. */
static void product(int64_t rows, const float *x, int64_t x_stride, const float *panel, int64_t k, float *c,
                    int64_t c_stride, const float *bias, int onto, const float *later) {
    strided_product(rows, x, x_stride, 1, panel, PANEL, k, c, c_stride, bias, onto, later);
}
