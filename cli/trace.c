/* dibit trace: what one element of a MatMulNBits's output is made of, as defined and as a device has it. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "diff.h"
#include "trace.h"

typedef struct trace_options {
    dibit_cli_common common;
    trace_sizes sizes;
    const char *node, *index, *kernel, *input, *save;
    uint32_t tokens;
    uint64_t seed;
    bool all, no_proof;
} trace_options;

typedef struct trace_context {
    trace_options options;
    dibit_model *model;
    dibit_device *device;
    dibit_session *session;
    diff_tensors inputs; /* of --input */
    dibit_tensors *made; /* up */
} trace_context;

/* ---- Printing: a line for each product ----------------------------------------------------------- */

static const char none[] = "-";

static const char *number(uint64_t v, char text[24]) {
    if (v == UINT64_MAX) return none;
    snprintf(text, 24, "%" PRIu64, v);
    return text;
}

/* The bits that a packed zero point takes of its byte, "1234:4". */
static const char *zero_place(const dibit_trace_product *p, char text[40]) {
    if (p->zero_address == UINT64_MAX) return none;
    snprintf(text, 40, "%" PRIu64 ":%u", p->zero_address, (unsigned)p->zero_shift);
    return text;
}

static void print_header(const dibit_trace_info *info) {
    printf("         %5s %9s %10s %5s %5s %5s %5s %10s %7s %9s %11s %8s %12s%s %13s %13s\n", "k",
           "byte", "word", "shift", "mask", "code", "block", "zero:bit", "zero", "scale at",
           "scale", "A index", "A", info->int8_activations ? "  int8" : "", "product", "sum");
}

static void print_product(const char *side, const dibit_trace_info *info,
                          const dibit_trace_product *p) {
    const uint64_t byte = p->address == UINT64_MAX ? UINT64_MAX : p->address + p->shift / 8;
    char at[24], zero[40], scale[24], index[24], code[16] = "";
    if (info->int8_activations) snprintf(code, sizeof code, " %5d", (int)p->a_code);
    printf("%-8s %5" PRId64 " %9s 0x%08x %5u  0x%02x %5u %5" PRId64
           " %10s %7.6g %9s %11.6g %8s %12.7g%s %13.7g %13.7g\n",
           side, p->k, number(byte, at), (unsigned)p->word, (unsigned)p->shift, (unsigned)p->mask,
           (unsigned)p->code, p->block, zero_place(p, zero), (double)p->zero_point,
           number(p->scale_address, scale), (double)p->scale,
           number(p->a_index < 0 ? UINT64_MAX : (uint64_t)p->a_index, index), (double)p->a, code,
           p->product, p->sum);
    if (p->next_word) printf("%-8s %5s and the word after it, 0x%08x\n", "", "", p->next_word);
}

static bool same_float(float a, float b) { return a == b || (isnan(a) && isnan(b)); }

/* What is behind the first wrong product has not been judged. */
static bool same(const dibit_trace_info *info, const dibit_trace_product *a,
                 const dibit_trace_product *b) {
    if (info->first_wrong < 0 || a->k < info->first_wrong) return true;
    return a->address == b->address && a->word == b->word && a->next_word == b->next_word &&
           a->shift == b->shift && a->mask == b->mask && a->code == b->code &&
           a->block == b->block && a->zero_address == b->zero_address &&
           a->zero_shift == b->zero_shift && same_float(a->zero_point, b->zero_point) &&
           a->scale_address == b->scale_address && same_float(a->scale, b->scale) &&
           a->a_index == b->a_index && same_float(a->a, b->a) && a->a_code == b->a_code &&
           same_float(a->a_scale, b->a_scale);
}

/* How many products are shown: up to the first wrong one unless all are. */
static int64_t shown_of(const dibit_trace_info *info, bool all) {
    if (all || info->first_wrong < 0 || info->first_wrong >= info->K) return info->K;
    return info->first_wrong + 1;
}

static void print_text(const dibit_trace *trace, const dibit_trace_info *info, bool all) {
    printf("%s: %u bits, block %" PRId64 ", M %" PRId64 ", N %" PRId64 ", K %" PRId64
           ", element [%" PRId64 ",%" PRId64 "]%s%s\n",
           info->node, (unsigned)info->bits, info->block_size, info->M, info->N, info->K, info->m,
           info->n, info->kernel[0] ? ", " : "", info->kernel);
    print_header(info);
    for (int64_t k = 0; k < shown_of(info, all); k++) {
        dibit_trace_product expected, got;
        dibit_trace_get_product(trace, k, &expected, &got);
        if (same(info, &expected, &got)) {
            print_product("", info, &expected);
        } else {
            print_product("expected", info, &expected);
            print_product("got", info, &got);
        }
    }
    printf("sum %.9g, output %.9g, expected %.9g within %.3g\n", info->sum, (double)info->got,
           info->expected, info->allowed);
    if (info->first_wrong >= 0) {
        printf("FIRST WRONG BIT: %s\n", info->text);
    } else {
        printf("%s\n", info->wrong       ? info->text
                       : info->kernel[0] ? "every product is as defined, and so is the output"
                                         : "the CPU's output is as defined");
    }
}

/* ---- JSON ---------------------------------------------------------------------------------------- */

static json_t *number_json(uint64_t v) {
    return v == UINT64_MAX ? json_null() : json_integer((json_int_t)v);
}
static json_t *real_json(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *product_json(const dibit_trace_info *info, const dibit_trace_product *p) {
    json_t *const o = json_object();
    json_object_set_new(o, "address", number_json(p->address));
    json_object_set_new(o, "word", json_integer(p->word));
    json_object_set_new(o, "next_word", json_integer(p->next_word));
    json_object_set_new(o, "shift", json_integer(p->shift));
    json_object_set_new(o, "mask", json_integer(p->mask));
    json_object_set_new(o, "code", json_integer(p->code));
    json_object_set_new(o, "block", json_integer(p->block));
    json_object_set_new(o, "zero_address", number_json(p->zero_address));
    json_object_set_new(o, "zero_shift", json_integer(p->zero_shift));
    json_object_set_new(o, "zero_point", real_json((double)p->zero_point));
    json_object_set_new(o, "scale_address", number_json(p->scale_address));
    json_object_set_new(o, "scale", real_json((double)p->scale));
    json_object_set_new(o, "a_index", json_integer(p->a_index));
    json_object_set_new(o, "a", real_json((double)p->a));
    if (info->int8_activations) {
        json_object_set_new(o, "a_code", json_integer(p->a_code));
        json_object_set_new(o, "a_scale", real_json((double)p->a_scale));
    }
    json_object_set_new(o, "product", real_json(p->product));
    json_object_set_new(o, "sum", real_json(p->sum));
    return o;
}

static void print_json(const dibit_trace *trace, const dibit_trace_info *info, bool all) {
    json_t *const products = json_array();
    for (int64_t k = 0; k < shown_of(info, all); k++) {
        dibit_trace_product expected, got;
        dibit_trace_get_product(trace, k, &expected, &got);
        json_t *const o =
            json_pack("{s:I, s:o}", "k", (json_int_t)k, "expected", product_json(info, &expected));
        if (info->kernel[0]) json_object_set_new(o, "got", product_json(info, &got));
        json_array_append_new(products, o);
    }
    json_t *const o = json_pack(
        "{s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:I, s:s}", "node", info->node,
        "kernel", info->kernel, "bits", (int)info->bits, "block_size", (json_int_t)info->block_size,
        "M", (json_int_t)info->M, "N", (json_int_t)info->N, "K", (json_int_t)info->K, "m",
        (json_int_t)info->m, "n", (json_int_t)info->n, "wrong", info->wrong, "first_wrong",
        (json_int_t)info->first_wrong, "text", info->text);
    json_object_set_new(o, "output", real_json((double)info->got));
    json_object_set_new(o, "expected", real_json(info->expected));
    json_object_set_new(o, "allowed", real_json(info->allowed));
    json_object_set_new(o, "products", products);
    json_dumpf(o, stdout, JSON_INDENT(1));
    printf("\n");
    json_decref(o);
}

/* ---- Running --------------------------------------------------------------------------------------- */

/* "0,3,82"; false when it is no such list. */
static bool parse_index(const char *text, int64_t index[DIBIT_MAX_RANK], uint32_t *n) {
    for (*n = 0; *n < DIBIT_MAX_RANK;) {
        char *end;
        errno = 0;
        index[(*n)++] = strtoll(text, &end, 10);
        if (end == text || errno) return false;
        if (*end == '\0') return *n >= 2;
        if (*end != ',') return false;
        text = end + 1;
    }
    return false;
}

static bool find_inputs(trace_context *c, dibit_run *run, dibit_error *error) {
    const trace_options *const o = &c->options;
    if (o->input) {
        if (!diff_load(c->model, o->input, &c->inputs, NULL, error)) return false;
        *run = (dibit_run){.inputs = c->inputs.list, .n_inputs = c->inputs.n};
        return true;
    }
    if (dibit_tensors_make_up(c->session, o->tokens, o->seed, &c->made, error)) return false;
    *run = (dibit_run){.inputs = dibit_tensors_get(c->made, 0),
                       .n_inputs = dibit_tensors_count(c->made)};
    return true;
}

static bool run_session(trace_context *c, dibit_error *error) {
    const trace_options *const o = &c->options;
    const dibit_session_desc desc = {.device = c->device,
                                     .activations = o->common.activations,
                                     .keep_values = true,
                                     .no_fusion = o->common.no_fusion,
                                     .no_proof = o->no_proof};
    dibit_run run;
    return dibit_session_create(c->model, &desc, &c->session, error) == DIBIT_OK &&
           find_inputs(c, &run, error) && dibit_session_run(c->session, &run, error) == DIBIT_OK;
}

static int trace_element(const char *verb, const trace_context *c) {
    const trace_options *const o = &c->options;
    int64_t index[DIBIT_MAX_RANK];
    dibit_trace_desc desc = {.node = o->node, .index = index, .kernel = o->kernel};
    dibit_trace *trace = NULL;
    dibit_trace_info info;
    dibit_error error;
    (void)parse_index(o->index, index, &desc.n_index);
    dibit_status status = dibit_trace_begin(c->session, &desc, &trace, &error);
    if (status == DIBIT_OK) status = DIBIT_PENDING;
    while (status == DIBIT_PENDING) status = dibit_trace_poll(trace, &error);
    int result = 1;
    if (status != DIBIT_OK) {
        dibit_cli_fail(verb, error.text);
    } else {
        dibit_trace_get_info(trace, &info);
        (o->common.json ? print_json : print_text)(trace, &info, o->all);
        result = info.wrong;
    }
    dibit_trace_destroy(&trace);
    return result;
}

static int trace_model(const char *verb, trace_context *c, const dibit_model_desc *model) {
    dibit_error error;
    const char *why;
    int result = 1;
    if (dibit_model_load(model, &c->model, &error) ||
        dibit_cli_open_device(&c->options.common, &c->device, &why, &error) ||
        !run_session(c, &error)) {
        dibit_cli_fail(verb, error.text);
    } else {
        result = trace_element(verb, c);
    }
    dibit_session_destroy(&c->session);
    dibit_tensors_destroy(&c->made);
    diff_free_tensors(&c->inputs);
    dibit_device_destroy(&c->device);
    dibit_model_destroy(&c->model);
    return result;
}

static int trace_made_up(const char *verb, trace_context *c) {
    trace_options *const o = &c->options;
    dibit_error error;
    dibit_model_desc model = {.name = "the made-up model"};
    o->sizes.seed = o->seed;
    size_t n = 0;
    char *const data = trace_make_model(&o->sizes, &n, &error);
    if (!data) return dibit_cli_fail(verb, error.text);
    model.data = data;
    model.data_bytes = n;
    int result = 1;
    FILE *const file = o->save ? fopen(o->save, "wb") : NULL;
    if (o->save && !file) {
        snprintf(error.text, sizeof error.text, "%.400s: %s", o->save, strerror(errno));
        dibit_cli_fail(verb, error.text);
    } else {
        if (file) fwrite(data, 1, n, file);
        if (file) fclose(file);
        result = trace_model(verb, c, &model);
    }
    free(data);
    return result;
}

/* A folder that `dibit diff --save` wrote has one node, and brings its inputs. */
static int trace_file(const char *verb, const char *given, trace_context *c) {
    trace_options *const o = &c->options;
    char *const path = dibit_cli_find_model(given);
    char *const set = dibit_cli_format("%s/test_data_set_0/input_0.pb", given);
    if (!o->input && !o->node && dibit_cli_is_file(set)) o->input = given;
    free(set);
    if (!path) {
        char *const sentence = dibit_cli_format("%s: no ONNX model is there", given);
        dibit_cli_fail(verb, sentence);
        free(sentence);
        return 1;
    }
    const dibit_model_desc model = {.path = path};
    const int result = trace_model(verb, c, &model);
    free(path);
    return result;
}

/* ---- The verb --------------------------------------------------------------------------------------- */

static bool among(const char *word, const char *const *words) {
    while (*words && strcmp(word, *words) != 0) words++;
    return *words != NULL;
}

static int check_sizes(const char *verb, const trace_sizes *s) {
    static const char *const kinds[] = {"none", "packed", "float", "float16", "bfloat16", NULL};
    enum { MOST = 1 << 20 };
    if (s->bits < 1 || s->bits > 8) return dibit_cli_usage(verb, "--bits is 1 to 8");
    if (s->block < 16 || s->block > MOST || (s->block & (s->block - 1)) != 0)
        return dibit_cli_usage(verb, "--block is a power of two from 16 on");
    if (s->M < 1 || s->N < 1 || s->K < 1 || s->M > MOST || s->N > MOST || s->K > MOST ||
        (uint64_t)s->N * s->K > 1u << 30 || (uint64_t)s->M * s->K > 1u << 28)
        return dibit_cli_usage(verb, "-M, -N and -K are 1 to %d, and not all of them large", MOST);
    if (!among(s->zero_points, kinds))
        return dibit_cli_usage(verb, "--zero-points is none, packed, float, float16 or bfloat16");
    if (!among(s->scales, kinds + 2))
        return dibit_cli_usage(verb, "--scales is float, float16 or bfloat16");
    return 0;
}

int dibit_cli_trace(int argc, char **argv) {
    trace_context c = {.options = {.tokens = 5,
                                   .seed = 1,
                                   .sizes = {.block = 32,
                                             .M = 1,
                                             .N = 64,
                                             .K = 128,
                                             .zero_points = "packed",
                                             .scales = "float16"}}};
    trace_options *const o = &c.options;
    trace_sizes *const s = &o->sizes;
    const dibit_cli_option table[] = {
        {"index", 0, "M,N", "the element: row and column of the output, or all its axes",
         DIBIT_CLI_STRING, &o->index},
        {"node", 0, "NAME", "a MatMulNBits of the model (default: its only one)", DIBIT_CLI_STRING,
         &o->node},
        {"input", 0, "PATH",
         "a test_data_set, or a .npz (default: made up; without --node the folder's)",
         DIBIT_CLI_STRING, &o->input},
        {"tokens", 0, "N", "length of a prompt that is made up (default 5)", DIBIT_CLI_U32,
         &o->tokens},
        {"kernel", 0, "NAME", "trace this one (default: the one that is chosen)", DIBIT_CLI_STRING,
         &o->kernel},
        {"no-proof", 0, NULL, "also use kernels that fail their proof on this device",
         DIBIT_CLI_FLAG, &o->no_proof},
        {"all", 0, NULL, "go on after the first difference", DIBIT_CLI_FLAG, &o->all},
        {"seed", 0, "N", "for other inputs and weights that are made up", DIBIT_CLI_U64, &o->seed},
        {"bits", 0, "N", "without MODEL: of made-up weights", DIBIT_CLI_U32, &s->bits},
        {"block", 0, "N", "their block size (default 32)", DIBIT_CLI_U32, &s->block},
        {"M", 'M', "N", "rows of A (default 1)", DIBIT_CLI_U32, &s->M},
        {"N", 'N', "N", "rows of the weights (default 64)", DIBIT_CLI_U32, &s->N},
        {"K", 'K', "N", "columns of both (default 128)", DIBIT_CLI_U32, &s->K},
        {"zero-points", 0, "KIND", "none, packed (default), float, float16 or bfloat16",
         DIBIT_CLI_STRING, &s->zero_points},
        {"scales", 0, "TYPE", "float, float16 (default) or bfloat16", DIBIT_CLI_STRING, &s->scales},
        {"g-idx", 0, NULL, "with a g_idx", DIBIT_CLI_FLAG, &s->g_idx},
        {"bias", 0, NULL, "with a bias", DIBIT_CLI_FLAG, &s->bias},
        {"save", 0, "FILE", "write the made-up model, for other verbs", DIBIT_CLI_STRING, &o->save},
        {NULL, 0, NULL, NULL, DIBIT_CLI_FLAG, NULL},
    };
    const dibit_cli_spec spec = {
        .arguments = "[MODEL]",
        .help = "Lists the products that one element of a MatMulNBits's output is the sum of: the "
                "byte of the\n"
                "weights, the word, shift and mask that a code comes from, its block with the zero "
                "point's byte\n"
                "and bit and the scale, and the element of A. On a device the shader itself, built "
                "with TRACE,\n"
                "writes down what it loads and unpacks; the listing stops at the first that is not "
                "as defined,\n"
                "and names it. MODEL is a model, a folder that `dibit diff --save` wrote, or "
                "absent: then --bits\n"
                "and sizes make one up. Exit code 0 when all is as defined, 1 when not.\n",
        .options = table,
        .common = &o->common,
        .max_arguments = 1,
    };
    const int n = dibit_cli_parse(&spec, argc, argv);
    if (n < 0) return dibit_cli_exit_code(n);
    int64_t index[DIBIT_MAX_RANK];
    uint32_t n_index;
    if (!o->index) return dibit_cli_usage(argv[0], "--index says which element");
    if (!parse_index(o->index, index, &n_index))
        return dibit_cli_usage(argv[0], "--index cannot be '%s'", o->index);
    if (n == 0 && !s->bits)
        return dibit_cli_usage(argv[0], "expected MODEL, or --bits for a made-up one");
    if (n == 1 && s->bits) return dibit_cli_usage(argv[0], "--bits does not go with MODEL");
    if (n == 1) return trace_file(argv[0], argv[1], &c);
    const int wrong = check_sizes(argv[0], s);
    return wrong ? wrong : trace_made_up(argv[0], &c);
}
