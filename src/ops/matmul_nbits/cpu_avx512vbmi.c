/* MatMulNBits with AVX512, VNNI and VBMI, int8 activations: the widths whose codes cross bytes, and 1 bit. */
#include "ops/matmul_nbits/cpu_vec512_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_matvec_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_tile_tmpl.h"

#define SUFFIX avx512vbmi
#define FORMS(RUN) RUN(int8_matvec) RUN(int8_tile)
#define BITS 1
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 3
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 5
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 6
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 7
#include "ops/matmul_nbits/cpu_tmpl.h"
