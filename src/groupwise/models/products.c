/* Matrix products in fp32: out = a @ b, for operands that lie either way in memory.
 *
 * A block of b stands in panels, which all threads share; each goes past it with rows of a of its own. A number of the
 * result adds up in one order whatever the number of threads. The caller, products.py, owns all memory.
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

/* A panel of a block of b, zeros behind its last column. What lies crosswise is read by lines of the cache. */
static void lay_out(const Matrix *b, int64_t first, int64_t depth, int64_t column, int64_t columns, float *panel) {
    const float *from = b->at + first * b->row + column * b->column;
    if (columns < PANEL) memset(panel, 0, 4 * depth * PANEL);
    if (b->column == 1)
        for (int64_t d = 0; d < depth; d++) memcpy(panel + d * PANEL, from + d * b->row, 4 * columns);
    else
        for (int64_t start = 0; start < depth; start += LANES)
            for (int64_t j = 0; j < columns; j++)
                for (int64_t d = start; d < least(depth, start + LANES); d++)
                    panel[d * PANEL + j] = from[d * b->row + j * b->column];
}

/* Rows of a as [TILE rows][depth][TILE]: where they lie crosswise, each is read but once. */
static void turn(const Matrix *a, int64_t row, int64_t rows, int64_t first, int64_t depth, float *out) {
    for (int64_t r = 0; r < rows; r += TILE, out += depth * TILE)
        for (int64_t d = 0; d < depth; d++) {
            const float *from = a->at + (row + r) * a->row + (first + d) * a->column;
            if (a->row == 1 && rows - r >= TILE)
                memcpy(out + d * TILE, from, 4 * TILE);
            else
                for (int64_t i = 0; i < least(TILE, rows - r); i++) out[d * TILE + i] = from[i * a->row];
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

int64_t multiply_floats(int64_t threads) { return DEPTH * COLUMNS + threads * DEPTH * ROWS; }

/* out[rows][columns], dense, (+)= a[rows][depth] @ b[depth][columns]. */
void multiply(const Matrix *a, const Matrix *b, int64_t rows, int64_t depth, int64_t columns, float *out, int onto,
              float *work, int threads) {
    float *panels = work;
#pragma omp parallel num_threads(threads)
    {
        float *own = work + DEPTH * COLUMNS + omp_get_thread_num() * DEPTH * ROWS;
        for (int64_t column = 0; column < columns; column += COLUMNS)
            for (int64_t first = 0; first < depth; first += DEPTH) {
                int64_t wide = least(COLUMNS, columns - column), deep = least(DEPTH, depth - first);
#pragma omp for schedule(static)
                for (int64_t p = 0; p < wide; p += PANEL)
                    lay_out(b, first, deep, column + p, least(PANEL, wide - p), panels + p * deep);
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
