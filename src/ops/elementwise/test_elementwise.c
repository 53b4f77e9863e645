/* The elementwise family against definitions in double and int64, over types, shapes and edges. */
#include "dbt_test.h"
#include "op_harness.h"

/* ---- Unary, on floats ---- */

static double alpha_, beta_; /* attributes of the case */
static double sgn(double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
static double reciprocal(double x) { return 1 / x; }
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double clamp01(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
static double hard_sigmoid(double x) { return clamp01(alpha_ * x + beta_); }
static double hard_swish(double x) { return x * clamp01(x / 6 + 0.5); }
static double relu(double x) { return x < 0 ? 0 : x; }
static double leaky_relu(double x) { return x < 0 ? alpha_ * x : x; }
static double thresholded_relu(double x) { return x > alpha_ ? x : 0; }
static double elu(double x) { return x < 0 ? alpha_ * expm1(x) : x; }
static double selu(double x) { return beta_ * elu(x); }
static double celu(double x) { return x < 0 ? alpha_ * expm1(x / alpha_) : x; }
static double softplus(double x) { return relu(x) + log1p(exp(-fabs(x))); }
static double softsign(double x) { return x / (1 + fabs(x)); }
static double mish(double x) { return x * tanh(softplus(x)); }
static double swish(double x) { return x * sigmoid(alpha_ * x); }
static double gelu(double x) { return x * 0.5 * erfc(-x / sqrt(2)); }
static double fast_gelu(double x) {
    return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}
static double negative(double x) { return -x; }

typedef struct unary_case {
    const char *domain, *name;
    double (*f)(double);
    float lo, hi;
    float alpha, beta; /* 0: without the attribute */
    const char *beta_name, *approximate;
    double default_alpha, default_beta;
} unary_case;

static const unary_case unary_cases[] = {
    {"", "Abs", fabs, -3, 3, 0, 0, 0, 0, 0, 0},
    {"", "Neg", negative, -3, 3, 0, 0, 0, 0, 0, 0},
    {"", "Sign", sgn, -3, 3, 0, 0, 0, 0, 0, 0},
    {"", "Floor", floor, -30, 30, 0, 0, 0, 0, 0, 0},
    {"", "Ceil", ceil, -30, 30, 0, 0, 0, 0, 0, 0},
    {"", "Round", rint, -30, 30, 0, 0, 0, 0, 0, 0},
    {"", "Sqrt", sqrt, 0, 30, 0, 0, 0, 0, 0, 0},
    {"", "Reciprocal", reciprocal, -2, 2, 0, 0, 0, 0, 0, 0},
    {"", "Exp", exp, -110, 95, 0, 0, 0, 0, 0, 0},
    {"", "Log", log, 0, 100, 0, 0, 0, 0, 0, 0},
    {"", "Sin", sin, -9, 9, 0, 0, 0, 0, 0, 0},
    {"", "Cos", cos, -9, 9, 0, 0, 0, 0, 0, 0},
    {"", "Sin", sin, -3e4f, 3e4f, 0, 0, 0, 0, 0, 0}, /* positions times frequencies */
    {"", "Cos", cos, -3e4f, 3e4f, 0, 0, 0, 0, 0, 0},
    {"", "Cos", cos, -1e30f, 1e30f, 0, 0, 0, 0, 0, 0},
    {"", "Tan", tan, -9, 9, 0, 0, 0, 0, 0, 0},
    {"", "Asin", asin, -1, 1, 0, 0, 0, 0, 0, 0},
    {"", "Acos", acos, -1, 1, 0, 0, 0, 0, 0, 0},
    {"", "Atan", atan, -9, 9, 0, 0, 0, 0, 0, 0},
    {"", "Sinh", sinh, -9, 9, 0, 0, 0, 0, 0, 0},
    {"", "Cosh", cosh, -9, 9, 0, 0, 0, 0, 0, 0},
    {"", "Tanh", tanh, -9, 9, 0, 0, 0, 0, 0, 0},
    {"", "Asinh", asinh, -9, 9, 0, 0, 0, 0, 0, 0},
    {"", "Acosh", acosh, 1, 9, 0, 0, 0, 0, 0, 0},
    {"", "Atanh", atanh, -1, 1, 0, 0, 0, 0, 0, 0},
    {"", "Sigmoid", sigmoid, -100, 100, 0, 0, 0, 0, 0, 0},
    {"", "HardSwish", hard_swish, -4, 4, 0, 0, 0, 0, 0, 0},
    {"", "Relu", relu, -4, 4, 0, 0, 0, 0, 0, 0},
    {"", "Softplus", softplus, -40, 40, 0, 0, 0, 0, 0, 0},
    {"", "Softsign", softsign, -40, 40, 0, 0, 0, 0, 0, 0},
    {"", "Mish", mish, -30, 30, 0, 0, 0, 0, 0, 0},
    {"", "Erf", erf, -5, 5, 0, 0, 0, 0, 0, 0},
    {"", "HardSigmoid", hard_sigmoid, -4, 4, 0.3f, 0.4f, "beta", 0, 0, 0},
    {"", "HardSigmoid", hard_sigmoid, -4, 4, 0, 0, 0, 0, 0.2f, 0.5},
    {"", "LeakyRelu", leaky_relu, -4, 4, 0, 0, 0, 0, 0.01f, 0},
    {"", "ThresholdedRelu", thresholded_relu, -4, 4, 0, 0, 0, 0, 1, 0},
    {"", "Elu", elu, -9, 4, 2.5f, 0, 0, 0, 0, 0},
    {"", "Celu", celu, -9, 4, 2.5f, 0, 0, 0, 0, 0},
    {"", "Selu", selu, -9, 4, 0, 0, 0, 0, 1.67326319217681884765625, 1.05070102214813232421875},
    {"", "Gelu", gelu, -9, 9, 0, 0, 0, "none", 0, 0},
    {"", "Gelu", fast_gelu, -9, 9, 0, 0, 0, "tanh", 0, 0},
    {"", "Swish", swish, -90, 90, 0, 0, 0, 0, 1, 0},
    {"com.microsoft", "QuickGelu", swish, -60, 60, 0, 0, 0, 0, 1.702f, 0},
    {"com.microsoft", "Gelu", gelu, -9, 9, 0, 0, 0, 0, 0, 0},
    {"com.microsoft", "FastGelu", fast_gelu, -9, 9, 0, 0, 0, 0, 0, 0},
};

static void test_unary_formulas(void **state) {
    (void)state;
    enum { N = 60000 };
    static float x[N], want[N];
    uint64_t seed = 3;
    for (size_t k = 0; k < sizeof unary_cases / sizeof *unary_cases; k++) {
        const unary_case *const c = &unary_cases[k];
        alpha_ = c->alpha != 0 ? (double)c->alpha : c->default_alpha;
        beta_ = c->beta != 0 ? (double)c->beta : c->default_beta;
        for (int i = 0; i < N; i++) {
            x[i] = i == 0 ? c->lo : dbt_test_uniform(&seed, c->lo, c->hi);
            want[i] = (float)c->f((double)x[i]);
        }
        dbt_onnx_attr attrs[3];
        uint32_t n = 0;
        if (c->alpha != 0) attrs[n++] = (dbt_onnx_attr)DBT_FLOAT("alpha", c->alpha);
        if (c->beta != 0) attrs[n++] = (dbt_onnx_attr)DBT_FLOAT(c->beta_name, c->beta);
        if (c->approximate) attrs[n++] = (dbt_onnx_attr)DBT_STRING("approximate", c->approximate);
        const dibit_tensor in = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 3, N / 3);
        const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, want, 3, N / 3);
        dbt_op_case_expect(&(dbt_op_case){.domain = c->domain,
                                          .name = c->name,
                                          .opset = 24,
                                          .attrs = attrs,
                                          .n_attrs = n,
                                          .inputs = &in,
                                          .n_inputs = 1},
                           0, &out);
    }
}

#define UNARY(name_, opset_, type_, out_type_, x_, want_, n_)                                      \
    do {                                                                                           \
        const dibit_tensor in_ = DBT_TENSOR(type_, x_, n_);                                        \
        const dibit_tensor out_ = DBT_TENSOR(out_type_, want_, n_);                                \
        dbt_op_case_expect(                                                                        \
            &(dbt_op_case){.name = (name_), .opset = (opset_), .inputs = &in_, .n_inputs = 1}, 0,  \
            &out_);                                                                                \
    } while (0)

static void test_unary_integers_and_bools(void **state) {
    (void)state;
    const int8_t i8[4] = {-128, -3, 0, 127};
    UNARY("Abs", 13, DIBIT_TYPE_INT8, DIBIT_TYPE_INT8, i8, ((int8_t[]){-128, 3, 0, 127}), 4);
    UNARY("Neg", 13, DIBIT_TYPE_INT8, DIBIT_TYPE_INT8, i8, ((int8_t[]){-128, 3, 0, -127}), 4);
    UNARY("Sign", 13, DIBIT_TYPE_INT8, DIBIT_TYPE_INT8, i8, ((int8_t[]){-1, -1, 0, 1}), 4);
    UNARY("Relu", 14, DIBIT_TYPE_INT8, DIBIT_TYPE_INT8, i8, ((int8_t[]){0, 0, 0, 127}), 4);
    UNARY("BitwiseNot", 18, DIBIT_TYPE_INT8, DIBIT_TYPE_INT8, i8, ((int8_t[]){127, 2, -1, -128}),
          4);
    const uint16_t u16[3] = {0, 1, 65535};
    UNARY("BitwiseNot", 18, DIBIT_TYPE_UINT16, DIBIT_TYPE_UINT16, u16,
          ((uint16_t[]){65535, 65534, 0}), 3);
    UNARY("Abs", 6, DIBIT_TYPE_UINT16, DIBIT_TYPE_UINT16, u16, u16, 3);
    const int64_t i64[3] = {INT64_MIN, -7, 9};
    UNARY("Neg", 6, DIBIT_TYPE_INT64, DIBIT_TYPE_INT64, i64, ((int64_t[]){INT64_MIN, 7, -9}), 3);
    UNARY("Abs", 6, DIBIT_TYPE_INT64, DIBIT_TYPE_INT64, i64, ((int64_t[]){INT64_MIN, 7, 9}), 3);
    const int32_t i32[3] = {INT32_MIN, -7, 9};
    UNARY("Neg", 6, DIBIT_TYPE_INT32, DIBIT_TYPE_INT32, i32, ((int32_t[]){INT32_MIN, 7, -9}), 3);
    const uint8_t b[3] = {0, 1, 1};
    UNARY("Not", 1, DIBIT_TYPE_BOOL, DIBIT_TYPE_BOOL, b, ((uint8_t[]){1, 0, 0}), 3);
    const float f[4] = {NAN, -INFINITY, INFINITY, 1};
    UNARY("IsNaN", 20, DIBIT_TYPE_FLOAT, DIBIT_TYPE_BOOL, f, ((uint8_t[]){1, 0, 0, 0}), 4);
    UNARY("IsInf", 20, DIBIT_TYPE_FLOAT, DIBIT_TYPE_BOOL, f, ((uint8_t[]){0, 1, 1, 0}), 4);
    UNARY("Exp", 13, DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT, f,
          ((float[]){NAN, 0, INFINITY, 2.7182818f}), 4);
    UNARY("Erf", 13, DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT, f, ((float[]){NAN, -1, 1, 0.84270079f}),
          4);
}

/* ---- Binary ---- */

typedef struct binary_case {
    const char *name;
    int32_t opset;
    int64_t (*f)(int64_t, int64_t);
    double (*g)(double, double);
    bool to_bool;
} binary_case;

static int64_t add(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }
static int64_t sub(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }
static int64_t mul(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
static int64_t quotient(int64_t a, int64_t b) { return b == 0 ? 0 : b == -1 ? sub(0, a) : a / b; }
static int64_t floor_mod(int64_t a, int64_t b) {
    if (b == 0 || b == -1) return 0;
    const int64_t r = a % b;
    return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
static int64_t equal(int64_t a, int64_t b) { return a == b; }
static int64_t less(int64_t a, int64_t b) { return a < b; }
static int64_t less_equal(int64_t a, int64_t b) { return a <= b; }
static int64_t greater(int64_t a, int64_t b) { return a > b; }
static int64_t greater_equal(int64_t a, int64_t b) { return a >= b; }
static int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t smallest(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t prelu(int64_t a, int64_t b) { return a < 0 ? mul(a, b) : a; }
static double addf(double a, double b) { return a + b; }
static double subf(double a, double b) { return a - b; }
static double mulf(double a, double b) { return a * b; }
static double divf(double a, double b) { return a / b; }
static double equalf(double a, double b) { return a == b; }
static double lessf(double a, double b) { return a < b; }
static double less_equalf(double a, double b) { return a <= b; }
static double greaterf(double a, double b) { return a > b; }
static double greater_equalf(double a, double b) { return a >= b; }
static double preluf(double a, double b) { return a < 0 ? a * b : a; }
static double floor_modf(double a, double b) { return a - floor(a / b) * b; }

static const binary_case binary_cases[] = {
    {"Add", 14, add, addf, false},
    {"Sub", 14, sub, subf, false},
    {"Mul", 14, mul, mulf, false},
    {"Div", 14, quotient, divf, false},
    {"Mod", 13, floor_mod, floor_modf, false},
    {"PRelu", 16, prelu, preluf, false},
    {"Max", 13, largest, fmax, false},
    {"Min", 13, smallest, fmin, false},
    {"Equal", 13, equal, equalf, true},
    {"Less", 13, less, lessf, true},
    {"LessOrEqual", 16, less_equal, less_equalf, true},
    {"Greater", 13, greater, greaterf, true},
    {"GreaterOrEqual", 16, greater_equal, greater_equalf, true},
};

typedef struct shape_case {
    int32_t a_rank, b_rank, rank;
    int64_t a[4], b[4], y[4];
} shape_case;

static const shape_case shapes[] = {
    {2, 2, 2, {3, 5}, {3, 5}, {3, 5}},
    {0, 0, 0, {0}, {0}, {0}},
    {2, 0, 2, {3, 5}, {0}, {3, 5}},
    {3, 1, 3, {2, 3, 5}, {5}, {2, 3, 5}},
    {3, 2, 3, {2, 3, 5}, {3, 1}, {2, 3, 5}},
    {4, 4, 4, {2, 3, 4, 5}, {2, 1, 4, 1}, {2, 3, 4, 5}},
    {4, 3, 4, {2, 3, 4, 5}, {1, 4, 5}, {2, 3, 4, 5}},
    {2, 2, 2, {0, 5}, {1, 5}, {0, 5}},
    {2, 1, 2, {3, 20000}, {1}, {3, 20000}},
    {2, 1, 2, {2, 20000}, {20000}, {2, 20000}},
    /* both are repeated: not for PRelu */
    {2, 2, 2, {3, 1}, {1, 5}, {3, 5}},
    {1, 2, 2, {5}, {3, 1}, {3, 5}},
    {4, 4, 4, {1, 3, 1, 5}, {2, 1, 4, 1}, {2, 3, 4, 5}},
    {0, 2, 2, {0}, {300, 200}, {300, 200}},
};
enum { REPEATED = 10, MAX_COUNT = 60000 };

static int64_t count_of(int32_t rank, const int64_t *dims) {
    int64_t n = 1;
    for (int32_t i = 0; i < rank; i++) n *= dims[i];
    return n;
}

/* The element of a tensor that numpy pairs with element `at` of the result. */
static int64_t source_index(int32_t rank, const int64_t *dims, const shape_case *s, int64_t at) {
    int64_t index = 0, stride = 1;
    for (int32_t d = s->rank - 1; d >= 0; d--) {
        const int32_t own = d - (s->rank - rank);
        const int64_t dim = own < 0 ? 1 : dims[own];
        index += (dim == 1 ? 0 : at % s->y[d]) * stride;
        stride *= dim;
        at /= s->y[d];
    }
    return index;
}

static const dibit_type binary_types[] = {DIBIT_TYPE_FLOAT,  DIBIT_TYPE_INT8,   DIBIT_TYPE_INT16,
                                          DIBIT_TYPE_INT32,  DIBIT_TYPE_INT64,  DIBIT_TYPE_UINT8,
                                          DIBIT_TYPE_UINT16, DIBIT_TYPE_UINT32, DIBIT_TYPE_UINT64};

static void store(dibit_type type, void *data, int64_t i, int64_t v) {
    switch (dibit_type_bits(type)) {
    case 8: ((uint8_t *)data)[i] = (uint8_t)v; break;
    case 16: ((uint16_t *)data)[i] = (uint16_t)v; break;
    case 32: ((uint32_t *)data)[i] = (uint32_t)v; break;
    default: ((uint64_t *)data)[i] = (uint64_t)v; break;
    }
}

/* Values fit every type, so that int64 arithmetic, then cut, is the reference. */
static int64_t random_value(uint64_t *seed, dibit_type type) {
    const int64_t v = (int64_t)(dbt_test_random(seed) >> 40) % 12;
    if (!dbt_type_in(type, DBT_TYPES_SIGNED)) return v == 11 ? 100 : v;
    return v == 11 ? (INT64_MIN >> (64 - dibit_type_bits(type))) : v - 5;
}

static void check_binary(const binary_case *c, const shape_case *s, dibit_type type) {
    static int64_t av[MAX_COUNT], bv[MAX_COUNT];
    static float af[MAX_COUNT], bf[MAX_COUNT], wf[MAX_COUNT];
    static uint64_t ai[MAX_COUNT], bi[MAX_COUNT], wi[MAX_COUNT];
    uint64_t seed = 5;
    const bool is_float = type == DIBIT_TYPE_FLOAT;
    for (int64_t i = 0; i < count_of(s->a_rank, s->a); i++) {
        store(type, ai, i, av[i] = is_float ? 0 : random_value(&seed, type));
        af[i] = dbt_test_uniform(&seed, -4, 4);
        if (i % 7 == 0) af[i] = rintf(af[i]);
    }
    for (int64_t i = 0; i < count_of(s->b_rank, s->b); i++) {
        store(type, bi, i, bv[i] = is_float ? 0 : random_value(&seed, type));
        bf[i] = dbt_test_uniform(&seed, 1, 3);
        if (i % 7 == 0) bf[i] = rintf(bf[i]);
    }
    const int64_t n = count_of(s->rank, s->y);
    const dibit_type out_type = c->to_bool ? DIBIT_TYPE_BOOL : type;
    for (int64_t i = 0; i < n; i++) {
        const int64_t ia = source_index(s->a_rank, s->a, s, i);
        const int64_t ib = source_index(s->b_rank, s->b, s, i);
        if (is_float) {
            const double w = c->g((double)af[ia], (double)bf[ib]);
            wf[i] = (float)w;
            store(out_type, wi, c->to_bool ? i : 0, (int64_t)w);
        } else {
            store(out_type, wi, i, c->f(av[ia], bv[ib]));
        }
    }
    dibit_tensor in[2] = {
        {.name = "a", .type = type, .rank = s->a_rank, .data = is_float ? (void *)af : (void *)ai},
        {.name = "b", .type = type, .rank = s->b_rank, .data = is_float ? (void *)bf : (void *)bi},
    };
    dibit_tensor out = {.type = out_type,
                        .rank = s->rank,
                        .data = is_float && !c->to_bool ? (void *)wf : (void *)wi};
    memcpy(in[0].dims, s->a, sizeof s->a);
    memcpy(in[1].dims, s->b, sizeof s->b);
    memcpy(out.dims, s->y, sizeof s->y);
    /* A double quotient floored can be off by a whole divisor at the border: leave float Mod's to the
     * few elements below. */
    if (is_float && strcmp(c->name, "Mod") == 0) return;
    dbt_op_case_expect(
        &(dbt_op_case){.name = c->name, .opset = c->opset, .inputs = in, .n_inputs = 2}, 0, &out);
}

static void test_binary_ops_broadcast_over_all_types(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof binary_cases / sizeof *binary_cases; k++) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            if (s >= REPEATED && strcmp(binary_cases[k].name, "PRelu") == 0) continue;
            for (size_t t = 0; t < sizeof binary_types / sizeof *binary_types; t++) {
                check_binary(&binary_cases[k], &shapes[s], binary_types[t]);
            }
        }
    }
}

#define BINARY(name_, opset_, type_, out_type_, a_, b_, want_, n_, attr_)                          \
    do {                                                                                           \
        const dibit_tensor in_[2] = {DBT_TENSOR(type_, a_, n_), DBT_TENSOR(type_, b_, n_)};        \
        const dibit_tensor out_ = DBT_TENSOR(out_type_, want_, n_);                                \
        const dbt_onnx_attr *const at_ = (attr_);                                                  \
        dbt_op_case_expect(&(dbt_op_case){.name = (name_),                                         \
                                          .opset = (opset_),                                       \
                                          .inputs = in_,                                           \
                                          .n_inputs = 2,                                           \
                                          .attrs = at_,                                            \
                                          .n_attrs = at_ ? 1 : 0},                                 \
                           0, &out_);                                                              \
    } while (0)

static void test_binary_edges(void **state) {
    (void)state;
    const dbt_onnx_attr fmod1 = DBT_INT("fmod", 1);
    const dbt_onnx_attr left = DBT_STRING("direction", "LEFT");
    const dbt_onnx_attr right = DBT_STRING("direction", "RIGHT");
    const int32_t a[4] = {INT32_MIN, 7, -7, 5}, b[4] = {-1, 0, 4, -3};
    BINARY("Div", 14, DIBIT_TYPE_INT32, DIBIT_TYPE_INT32, a, b, ((int32_t[]){INT32_MIN, 0, -1, -1}),
           4, NULL);
    BINARY("Mod", 13, DIBIT_TYPE_INT32, DIBIT_TYPE_INT32, a, b, ((int32_t[]){0, 0, 1, -1}), 4,
           NULL);
    BINARY("Mod", 13, DIBIT_TYPE_INT32, DIBIT_TYPE_INT32, a, b, ((int32_t[]){0, 0, -3, 2}), 4,
           &fmod1);
    const float fa[4] = {-7.5f, 7.5f, 5, -4}, fb[4] = {4, -4, 0.5f, 2};
    BINARY("Mod", 13, DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT, fa, fb, ((float[]){-3.5f, 3.5f, 0, 0}), 4,
           &fmod1);
    BINARY("Mod", 13, DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT, fa, fb, ((float[]){0.5f, -0.5f, 0, 0}), 4,
           NULL);
    const uint8_t s[4] = {1, 255, 255, 255}, w[4] = {7, 8, 1, 255};
    BINARY("BitShift", 11, DIBIT_TYPE_UINT8, DIBIT_TYPE_UINT8, s, w, ((uint8_t[]){128, 0, 254, 0}),
           4, &left);
    BINARY("BitShift", 11, DIBIT_TYPE_UINT8, DIBIT_TYPE_UINT8, s, w, ((uint8_t[]){0, 0, 127, 0}), 4,
           &right);
    const int16_t x[2] = {-2, 12}, y[2] = {7, 10};
    BINARY("BitwiseAnd", 18, DIBIT_TYPE_INT16, DIBIT_TYPE_INT16, x, y, ((int16_t[]){6, 8}), 2,
           NULL);
    BINARY("BitwiseOr", 18, DIBIT_TYPE_INT16, DIBIT_TYPE_INT16, x, y, ((int16_t[]){-1, 14}), 2,
           NULL);
    BINARY("BitwiseXor", 18, DIBIT_TYPE_INT16, DIBIT_TYPE_INT16, x, y, ((int16_t[]){-7, 6}), 2,
           NULL);
    const uint8_t p[4] = {0, 0, 1, 1}, q[4] = {0, 1, 0, 1};
    BINARY("And", 7, DIBIT_TYPE_BOOL, DIBIT_TYPE_BOOL, p, q, ((uint8_t[]){0, 0, 0, 1}), 4, NULL);
    BINARY("Or", 7, DIBIT_TYPE_BOOL, DIBIT_TYPE_BOOL, p, q, ((uint8_t[]){0, 1, 1, 1}), 4, NULL);
    BINARY("Xor", 7, DIBIT_TYPE_BOOL, DIBIT_TYPE_BOOL, p, q, ((uint8_t[]){0, 1, 1, 0}), 4, NULL);
    BINARY("Equal", 7, DIBIT_TYPE_BOOL, DIBIT_TYPE_BOOL, p, q, ((uint8_t[]){1, 0, 0, 1}), 4, NULL);
    const float n[3] = {NAN, 1, 2}, m[3] = {1, NAN, 3};
    BINARY("Max", 13, DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT, n, m, ((float[]){NAN, NAN, 3}), 3, NULL);
    BINARY("Min", 13, DIBIT_TYPE_FLOAT, DIBIT_TYPE_FLOAT, n, m, ((float[]){NAN, NAN, 2}), 3, NULL);
}

/* With the exponent computed, and as a constant. */
static void check_pow(const dibit_tensor *x, const dibit_tensor *e, const void *want) {
    dibit_tensor out = *x;
    out.data = (void *)(uintptr_t)want;
    const dibit_tensor in[2] = {*x, *e};
    dbt_op_case c = {.name = "Pow", .opset = 15, .inputs = in, .n_inputs = 2};
    dbt_op_case_expect(&c, 0, &out);
    c.constants = 2;
    dbt_op_case_expect(&c, 0, &out);
}

static void test_pow_over_types_of_the_exponent(void **state) {
    (void)state;
    const float x[4] = {-2, 3, 0.5f, 9}, e[4] = {3, -1, 2, 0.5f}, two = 2, half = 0.5f;
    const int64_t ei[4] = {3, 0, -1, 2}, three = 3;
    const int32_t b[4] = {-2, 3, -1, 7};
    const dibit_tensor xt = DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 4),
                       et = DBT_TENSOR(DIBIT_TYPE_FLOAT, e, 4);
    const dibit_tensor eit = DBT_TENSOR(DIBIT_TYPE_INT64, ei, 4),
                       bt = DBT_TENSOR(DIBIT_TYPE_INT32, b, 4);
    const dibit_tensor twot = DBT_SCALAR(DIBIT_TYPE_FLOAT, &two);
    const dibit_tensor halft = DBT_SCALAR(DIBIT_TYPE_FLOAT, &half);
    const dibit_tensor threet = DBT_SCALAR(DIBIT_TYPE_INT64, &three);
    check_pow(&xt, &et, (float[]){-8, 1.0f / 3, 0.25f, 3});
    check_pow(&xt, &eit, (float[]){-8, 1, 2, 81});
    check_pow(&xt, &twot, (float[]){4, 9, 0.25f, 81});
    check_pow(&xt, &halft, (float[]){NAN, 1.7320508f, 0.70710678f, 3});
    check_pow(&xt, &threet, (float[]){-8, 27, 0.125f, 729});
    const float minus[2] = {-0.5f, -1};
    const dibit_tensor inverse_root = DBT_SCALAR(DIBIT_TYPE_FLOAT, &minus[0]),
                       inverse = DBT_SCALAR(DIBIT_TYPE_FLOAT, &minus[1]);
    check_pow(&xt, &inverse_root, (float[]){NAN, 0.57735027f, 1.41421356f, 1.0f / 3});
    check_pow(&xt, &inverse, (float[]){-0.5f, 1.0f / 3, 2, 1.0f / 9});
    check_pow(&bt, &eit, (int32_t[]){-8, 1, -1, 49});
    check_pow(&bt, &twot, (int32_t[]){4, 9, 1, 49});
}

/* ---- The others ---- */

static void test_variadic_sums_and_means(void **state) {
    (void)state;
    const float a[3] = {1, 2, 3}, b[1] = {10}, c[6] = {100, 200, 300, 400, 500, 600};
    const dibit_tensor in[3] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, a, 3),
                                DBT_TENSOR(DIBIT_TYPE_FLOAT, b, 1),
                                DBT_TENSOR(DIBIT_TYPE_FLOAT, c, 2, 3)};
    const float sum[6] = {111, 212, 313, 411, 512, 613};
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, sum, 2, 3);
    dbt_op_case_expect(&(dbt_op_case){.name = "Sum", .opset = 13, .inputs = in, .n_inputs = 3}, 0,
                       &out);
    float mean[6];
    for (int i = 0; i < 6; i++) mean[i] = sum[i] / 3;
    const dibit_tensor out_mean = DBT_TENSOR(DIBIT_TYPE_FLOAT, mean, 2, 3);
    dbt_op_case_expect(&(dbt_op_case){.name = "Mean", .opset = 8, .inputs = in, .n_inputs = 3}, 0,
                       &out_mean);
    dbt_op_case_expect(&(dbt_op_case){.name = "Max", .opset = 8, .inputs = in, .n_inputs = 1}, 0,
                       &in[0]);
}

static void test_where_broadcasts_and_selects_shapes(void **state) {
    (void)state;
    const uint8_t condition[2] = {1, 0};
    const int64_t x[3] = {1, 2, 3}, y[1] = {-1}, want[6] = {1, 2, 3, -1, -1, -1};
    const dibit_tensor in[3] = {DBT_TENSOR(DIBIT_TYPE_BOOL, condition, 2, 1),
                                DBT_TENSOR(DIBIT_TYPE_INT64, x, 3),
                                DBT_TENSOR(DIBIT_TYPE_INT64, y, 1)};
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_INT64, want, 2, 3);
    dbt_op_case_expect(&(dbt_op_case){.name = "Where", .opset = 9, .inputs = in, .n_inputs = 3}, 0,
                       &out);
    const uint8_t few[3] = {1, 2, 3}, other[1] = {9}, want8[6] = {1, 2, 3, 9, 9, 9};
    const dibit_tensor in8[3] = {in[0], DBT_TENSOR(DIBIT_TYPE_UINT8, few, 3),
                                 DBT_TENSOR(DIBIT_TYPE_UINT8, other, 1)};
    const dibit_tensor out8 = DBT_TENSOR(DIBIT_TYPE_UINT8, want8, 2, 3);
    dbt_op_case_expect(&(dbt_op_case){.name = "Where", .opset = 16, .inputs = in8, .n_inputs = 3},
                       0, &out8);
}

static void test_clip_takes_limits_both_ways(void **state) {
    (void)state;
    const float x[4] = {-5, 0.5f, 5, NAN}, lo = -1, hi = 1;
    const dibit_tensor in[3] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 4),
                                DBT_SCALAR(DIBIT_TYPE_FLOAT, &lo),
                                DBT_SCALAR(DIBIT_TYPE_FLOAT, &hi)};
    const dibit_tensor upper[3] = {in[0], DBT_ABSENT, in[2]};
    const dbt_onnx_attr attrs[2] = {DBT_FLOAT("min", -1), DBT_FLOAT("max", 1)};
    const float both[4] = {-1, 0.5f, 1, NAN}, top[4] = {-5, 0.5f, 1, NAN};
    const dibit_tensor want_both = DBT_TENSOR(DIBIT_TYPE_FLOAT, both, 4);
    const dibit_tensor want_top = DBT_TENSOR(DIBIT_TYPE_FLOAT, top, 4);
    dbt_op_case_expect(&(dbt_op_case){.name = "Clip", .opset = 13, .inputs = in, .n_inputs = 3}, 0,
                       &want_both);
    dbt_op_case_expect(
        &(dbt_op_case){
            .name = "Clip", .opset = 6, .inputs = in, .n_inputs = 1, .attrs = attrs, .n_attrs = 2},
        0, &want_both);
    dbt_op_case_expect(&(dbt_op_case){.name = "Clip", .opset = 13, .inputs = upper, .n_inputs = 3},
                       0, &want_top);
    const int64_t xi[3] = {-9, 2, 9}, loi = -1, hii = 3, wanti[3] = {-1, 2, 3};
    const dibit_tensor ini[3] = {DBT_TENSOR(DIBIT_TYPE_INT64, xi, 3),
                                 DBT_SCALAR(DIBIT_TYPE_INT64, &loi),
                                 DBT_SCALAR(DIBIT_TYPE_INT64, &hii)};
    const dibit_tensor outi = DBT_TENSOR(DIBIT_TYPE_INT64, wanti, 3);
    dbt_op_case_expect(&(dbt_op_case){.name = "Clip", .opset = 12, .inputs = ini, .n_inputs = 3}, 0,
                       &outi);
}

static void test_gelus_with_a_bias(void **state) {
    (void)state;
    const float x[6] = {-1, 0, 1, 2, 3, -4}, bias[3] = {0.5f, -1, 2};
    float want[6];
    const dibit_tensor in[2] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, x, 2, 3),
                                DBT_TENSOR(DIBIT_TYPE_FLOAT, bias, 3)};
    const dibit_tensor out = DBT_TENSOR(DIBIT_TYPE_FLOAT, want, 2, 3);
    for (int i = 0; i < 6; i++) want[i] = (float)gelu((double)x[i] + (double)bias[i % 3]);
    dbt_op_case_expect(
        &(dbt_op_case){
            .domain = "com.microsoft", .name = "BiasGelu", .opset = 1, .inputs = in, .n_inputs = 2},
        0, &out);
    for (int i = 0; i < 6; i++) want[i] = (float)fast_gelu((double)x[i] + (double)bias[i % 3]);
    dbt_op_case_expect(
        &(dbt_op_case){
            .domain = "com.microsoft", .name = "FastGelu", .opset = 1, .inputs = in, .n_inputs = 2},
        0, &out);
}

static void test_bad_nodes_are_refused(void **state) {
    (void)state;
    const float f[6] = {0};
    const dibit_tensor ff[2] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, f, 2),
                                DBT_TENSOR(DIBIT_TYPE_FLOAT, f, 3)};
    const dibit_tensor fi[2] = {DBT_TENSOR(DIBIT_TYPE_FLOAT, f, 2),
                                DBT_TENSOR(DIBIT_TYPE_INT32, f, 2)};
    const dibit_tensor ii[2] = {DBT_TENSOR(DIBIT_TYPE_INT32, f, 2),
                                DBT_TENSOR(DIBIT_TYPE_INT32, f, 2)};
    dbt_op_case c = {.name = "Add", .opset = 14, .inputs = ff, .n_inputs = 2};
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "do not broadcast: 2 against 3");
    c.inputs = fi;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "same type, got float and int32");
    c.inputs = ii;
    c.name = "And";
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "int32 make no sense for And");
    c.name = "BitShift";
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "attribute 'direction' is missing");
    const dbt_onnx_attr up = DBT_STRING("direction", "UP"),
                        rough = DBT_STRING("approximate", "rough");
    c.attrs = &up;
    c.n_attrs = 1;
    dbt_op_case_refused(&c, DIBIT_BAD_FILE, "must be LEFT or RIGHT, got 'UP'");
    dbt_op_case_refused(&(dbt_op_case){.name = "Gelu",
                                       .opset = 20,
                                       .inputs = ff,
                                       .n_inputs = 1,
                                       .attrs = &rough,
                                       .n_attrs = 1},
                        DIBIT_BAD_FILE, "must be none or tanh, got 'rough'");
    dbt_op_case_refused(&(dbt_op_case){.name = "Exp", .opset = 13, .inputs = ii, .n_inputs = 1},
                        DIBIT_BAD_FILE, "int32 makes no sense for Exp");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unary_formulas),
        cmocka_unit_test(test_unary_integers_and_bools),
        cmocka_unit_test(test_binary_ops_broadcast_over_all_types),
        cmocka_unit_test(test_binary_edges),
        cmocka_unit_test(test_pow_over_types_of_the_exponent),
        cmocka_unit_test(test_variadic_sums_and_means),
        cmocka_unit_test(test_where_broadcasts_and_selects_shapes),
        cmocka_unit_test(test_clip_takes_limits_both_ways),
        cmocka_unit_test(test_gelus_with_a_bias),
        cmocka_unit_test(test_bad_nodes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
