/* MatMulNBits with AVX-VNNI, int8 activations of 2-, 4- and 8-bit codes: for machines with AVX2 and byte products, but without AVX512. */
#include "ops/matmul_nbits/cpu_vec256_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_matvec_tmpl.h"
#include "ops/matmul_nbits/cpu_int8_tile_tmpl.h"

#define SUFFIX avxvnni
#define FORMS(RUN) RUN(int8_matvec) RUN(int8_tile)
#define BITS 2
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 4
#include "ops/matmul_nbits/cpu_tmpl.h"
#define BITS 8
#include "ops/matmul_nbits/cpu_tmpl.h"
