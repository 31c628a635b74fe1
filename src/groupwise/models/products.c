/* Matrix products in fp32: out = a @ b, for operands that lie either way in memory.
 *
 * A block of b stands in panels, which all threads share; each goes past it with rows of a of its own. Few rows are not
 * worth that: b is read as it lies, once. A number of the result adds up in one order whatever the number of threads,
 * and, of few rows, whatever the rows beside it. The caller, products.py, owns all memory.
 */
#include "panels.h"

extern int omp_get_thread_num(void);

#define DEPTH 512   /* of a block of b, ... */
#define COLUMNS 512 /* ... which is 1 MB, */
#define ROWS 64     /* and rows of a that go past it together: a job is these rows and SHARE columns */
#define SHARE 256

typedef struct {
    const float *at;
    int64_t row, column; /* strides */
} Matrix;

/* Rows `from` to `to` of a block of b, as panels, zeros behind the last column. Read as they lie in memory. */
static void lay_out(const Matrix *b, int64_t first, int64_t depth, int64_t column, int64_t columns, int64_t from,
                    int64_t to, float *panels) {
    const float *block = b->at + first * b->row + column * b->column;
    int64_t rest = columns % PANEL;
    if (rest)
        for (int64_t d = from; d < to; d++) memset(panels + (columns - rest) * depth + d * PANEL, 0, 4 * PANEL);
    if (b->column == 1)
        for (int64_t d = from; d < to; d++)
            for (int64_t p = 0; p < columns; p += PANEL)
                memcpy(panels + p * depth + d * PANEL, block + d * b->row + p, 4 * least(PANEL, columns - p));
    else
        for (int64_t j = 0; j < columns; j++)
            for (int64_t d = from; d < to; d++)
                panels[j / PANEL * PANEL * depth + d * PANEL + j % PANEL] = block[d * b->row + j * b->column];
}

/* Rows of a as [TILE rows][depth][TILE], where they lie crosswise. */
static void turn(const Matrix *a, int64_t row, int64_t rows, int64_t first, int64_t depth, float *out) {
    for (int64_t d = 0; d < depth; d++) {
        const float *from = a->at + row * a->row + (first + d) * a->column;
        if (a->row == 1)
            for (int64_t r = 0; r < rows; r += LANES) __builtin_prefetch(from + AHEAD * a->column + r);
        for (int64_t r = 0; r < rows; r += TILE) {
            float *to = out + r * depth + d * TILE;
            if (a->row == 1 && rows - r >= TILE)
                memcpy(to, from + r, 4 * TILE);
            else
                for (int64_t i = r; i < least(rows, r + TILE); i++) to[i - r] = from[i * a->row];
        }
    }
}

/* One panel's columns of some rows: c[rows][columns] (+)= a @ panel. */
static void past(const Matrix *a, const float *turned, int64_t row, int64_t rows, int64_t first, int64_t depth,
                 const float *panel, int64_t columns, float *c, int64_t c_stride, int onto) {
    float narrow[ROWS * PANEL], *to = c;
    int64_t stride = c_stride;
    if (columns < PANEL) {
        to = narrow, stride = PANEL;
        for (int64_t r = 0; onto && r < rows; r++) memcpy(narrow + r * PANEL, c + r * c_stride, 4 * columns);
    }
    if (turned)
        for (int64_t r = 0; r < rows; r += TILE)
            strided_product(least(TILE, rows - r), turned + r * depth, 1, TILE, panel, PANEL, depth, to + r * stride,
                            stride, 0, onto, panel);
    else
        product(rows, a->at + row * a->row + first, a->row, panel, depth, to, stride, 0, onto, panel);
    if (columns < PANEL)
        for (int64_t r = 0; r < rows; r++) memcpy(c + r * c_stride, narrow + r * PANEL, 4 * columns);
}

int lanes(void) { return LANES; }

#define TURNED (DEPTH * (ROWS + TILE)) /* what turn() writes at most: the last rows are a whole tile */

int64_t multiply_floats(int64_t threads) { return DEPTH * COLUMNS + threads * TURNED; }

/* out[rows][columns], dense, (+)= a[rows][depth] @ b[depth][columns]. */
void multiply(const Matrix *a, const Matrix *b, int64_t rows, int64_t depth, int64_t columns, float *out, int onto,
              float *work, int threads) {
    float *panels = work;
#pragma omp parallel num_threads(threads)
    {
#ifdef _OPENMP
        float *own = work + DEPTH * COLUMNS + omp_get_thread_num() * TURNED;
#else
        float *own = work + DEPTH * COLUMNS;
#endif
        for (int64_t column = 0; column < columns; column += COLUMNS)
            for (int64_t first = 0; first < depth; first += DEPTH) {
                int64_t wide = least(COLUMNS, columns - column), deep = least(DEPTH, depth - first);
#pragma omp for schedule(static)
                for (int64_t d = 0; d < deep; d += LANES)
                    lay_out(b, first, deep, column, wide, d, least(deep, d + LANES), panels);
#pragma omp for schedule(static) collapse(2)
                for (int64_t row = 0; row < rows; row += ROWS)
                    for (int64_t share = 0; share < wide; share += SHARE) {
                        int64_t here = least(ROWS, rows - row), end = least(wide, share + SHARE);
                        if (a->column != 1) turn(a, row, here, first, deep, own);
                        for (int64_t p = share; p < end; p += PANEL)
                            past(a, a->column == 1 ? 0 : own, row, here, first, deep, panels + p * deep,
                                 least(PANEL, wide - p), out + row * columns + column + p, columns, onto || first);
                    }
            }
    }
}

typedef float quarter __attribute__((vector_size(LANES)));

/* sum_of(), in the time that it takes where there are as many sums as terms of each. */
static inline float quick_sum(vec v) {
    quarter part[4];
    memcpy(part, &v, sizeof v);
    quarter sum = (part[0] + part[1]) + (part[2] + part[3]);
    float total = 0;
    for (int i = 0; i < LANES / 4; i++) total += sum[i];
    return total;
}

#define SIDE 4 /* rows and columns whose sums the registers hold */

/* out[m][n] = a[m][depth] @ b[n][depth], turned: rows of both side by side. */
static inline __attribute__((always_inline)) void dots(const int m, const int n, const Matrix *a, const Matrix *b,
                                                       int64_t row, int64_t column, int64_t depth, float *out,
                                                       int64_t stride) {
    const float *x = a->at + row * a->row, *w = b->at + column * b->column;
    vec sum[SIDE][SIDE];
    int64_t d = 0;
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < n; j++) sum[i][j] = splat(0);
    for (; d + LANES <= depth; d += LANES) {
        vec of[SIDE];
        UNROLL for (int j = 0; j < n; j++) of[j] = load(w + j * b->column + d);
        UNROLL for (int i = 0; i < m; i++) {
            vec one = load(x + i * a->row + d);
            UNROLL for (int j = 0; j < n; j++) sum[i][j] += one * of[j];
        }
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            float rest = 0;
            for (int64_t e = d; e < depth; e++) rest += x[i * a->row + e] * w[j * b->column + e];
            out[(row + i) * stride + column + j] = rest + quick_sum(sum[i][j]);
        }
}

/* out[rows][columns], dense, = a[rows][depth] @ b, where rows of a and columns of b are dense. */
void multiply_few(const Matrix *a, const Matrix *b, int64_t rows, int64_t depth, int64_t columns, float *out,
                  int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t column = 0; column < columns; column += SIDE)
        for (int64_t row = 0; row < rows; row += SIDE) {
            if (columns - column >= SIDE)
                switch (least(SIDE, rows - row)) {
#define OF(m) case m: dots(m, SIDE, a, b, row, column, depth, out, columns); break;
                    OF(1) OF(2) OF(3) OF(4)
#undef OF
                }
            else
                for (int64_t r = row; r < least(rows, row + SIDE); r++)
                    for (int64_t c = column; c < columns; c++) dots(1, 1, a, b, r, c, depth, out, columns);
        }
}
