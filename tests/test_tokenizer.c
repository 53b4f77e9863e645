/* The tokenizer against what Hugging Face's package answered (tools/tokenizer_oracle.py), and against
 * files that are wrong. With arguments: golden files to check instead, as the oracle's fuzz makes
 * them. */
#include "dbt_test.h"

#include <dirent.h>

#include <jansson.h>

#include "dibit/lm.h"

#define DATA DBT_SOURCE_DIR "/tests/data/tokenizers/"

static size_t n_checked;

static dibit_tokenizer *load(const char *path) {
    dibit_error error = {0};
    dibit_tokenizer *tokenizer = NULL;
    if (dibit_tokenizer_load(&(dibit_tokenizer_desc){.path = path}, &tokenizer, &error))
        fail_msg("%s", error.text);
    return tokenizer;
}

static json_t *read_json(const char *path) {
    json_error_t error;
    json_t *json = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!json) fail_msg("%s: %s", path, error.text);
    return json;
}

static dibit_tokens read_ids(const json_t *list) {
    dibit_tokens ids = {0};
    dibit_error error;
    for (size_t i = 0; i < json_array_size(list); i++)
        assert_int_equal(
            dibit_tokens_append(&ids, &(int64_t){json_integer_value(json_array_get(list, i))}, 1,
                                &error),
            DIBIT_OK);
    return ids;
}

static void check_encode(const dibit_tokenizer *tokenizer, const json_t *c, const char *key,
                         const dibit_encode *encode, const char *where) {
    const json_t *list = json_object_get(c, key);
    dibit_tokens expected = read_ids(list ? list : json_object_get(c, "ids")), got = {0};
    dibit_error error = {0};
    const dibit_status status = dibit_tokenizer_encode(tokenizer, encode, &got, &error);
    size_t same = 0;
    while (same < got.count && same < expected.count && got.ids[same] == expected.ids[same]) same++;
    if (status || same < got.count || same < expected.count) {
        char *text = json_dumps(c, JSON_ENSURE_ASCII);
        fail_msg("%s: %s: status %d %s; %zu tokens, not %zu; token %zu is %lld: %s", where, key,
                 status, error.text, got.count, expected.count, same,
                 same < got.count ? (long long)got.ids[same] : -1LL, text);
        free(text);
    }
    size_t count = 0;
    assert_int_equal(dibit_tokenizer_count(tokenizer, encode, &count, &error), DIBIT_OK);
    assert_int_equal(count, expected.count);
    dibit_tokens_free(&expected);
    dibit_tokens_free(&got);
}

/* The whole list at once, and as a stream: equal, and every append of the stream whole characters. */
static void check_decode(const dibit_tokenizer *tokenizer, const json_t *c, const char *key,
                         bool skip, const char *where) {
    const json_t *value = json_object_get(c, key);
    if (!value) value = json_object_get(c, "text");
    dibit_tokens ids = read_ids(json_object_get(c, "decode"));
    dibit_text whole = {0}, streamed = {0};
    dibit_error error = {0};
    const dibit_decode decode = {.ids = ids.ids, .n_ids = ids.count, .skip_special = skip};
    assert_int_equal(dibit_tokenizer_decode(tokenizer, &decode, &whole, &error), DIBIT_OK);
    if (whole.bytes != json_string_length(value) ||
        memcmp(whole.data, json_string_value(value), whole.bytes) != 0) {
        char *text = json_dumps(c, JSON_ENSURE_ASCII);
        fail_msg("%s: decodes to \"%s\": %s", where, whole.data, text);
    }
    dibit_text_stream *stream = NULL;
    assert_int_equal(dibit_text_stream_create(tokenizer, skip, &stream, &error), DIBIT_OK);
    for (size_t i = 0; i < ids.count; i++) {
        const size_t before = streamed.bytes;
        assert_int_equal(dibit_text_stream_push(stream, ids.ids[i], &streamed, &error), DIBIT_OK);
        if (streamed.bytes > before) /* what comes next does not go on in the middle */
            assert_int_not_equal((unsigned char)streamed.data[before] & 0xc0, 0x80);
    }
    assert_int_equal(dibit_text_stream_flush(stream, &streamed, &error), DIBIT_OK);
    /* A run of <0x..> pieces that turns out to be no UTF-8 is U+FFFD throughout, and its beginning may
     * have been said. */
    if (strstr(where, "byte_fallback.json") && strstr(whole.data, "\xef\xbf\xbd"))
        assert_true(streamed.bytes > 0);
    else if (streamed.bytes != whole.bytes || memcmp(streamed.data, whole.data, whole.bytes) != 0)
        fail_msg("%s: streams \"%s\", not \"%s\"", where, streamed.data, whole.data);
    dibit_text_stream_destroy(&stream);
    dibit_text_free(&whole);
    dibit_text_free(&streamed);
    dibit_tokens_free(&ids);
}

static void check_golden(const char *path) {
    json_t *golden = read_json(path);
    const char *name = json_string_value(json_object_get(golden, "tokenizer"));
    char tokenizer_path[1024];
    const char *folder = name[0] == '/'              ? ""
                         : strchr(name, '/') != NULL ? DBT_SOURCE_DIR "/models/"
                                                     : DATA;
    snprintf(tokenizer_path, sizeof tokenizer_path, "%s%s", folder, name);
    dibit_tokenizer *tokenizer = load(tokenizer_path);
    const json_t *cases = json_object_get(golden, "cases");
    assert_true(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++, n_checked++) {
        const json_t *c = json_array_get(cases, i);
        if (json_object_get(c, "decode")) {
            check_decode(tokenizer, c, "text", false, name);
            check_decode(tokenizer, c, "skip", true, name);
            continue;
        }
        const json_t *value = json_object_get(c, "text");
        const char *hex = json_string_value(json_object_get(c, "hex"));
        size_t bytes = hex ? strlen(hex) / 2 : json_string_length(value);
        char *text = malloc(bytes + 1);
        assert_non_null(text);
        if (!hex) memcpy(text, json_string_value(value), bytes);
        for (size_t k = 0; hex && k < bytes; k++) {
            unsigned byte = 0;
            sscanf(hex + 2 * k, "%2x", &byte);
            text[k] = (char)byte;
        }
        dibit_encode encode = {.text = text, .text_bytes = bytes, .allow_special = true};
        check_encode(tokenizer, c, "ids", &encode, name);
        encode.add_special = true;
        check_encode(tokenizer, c, "added", &encode, name);
        encode.add_special = encode.allow_special = false;
        check_encode(tokenizer, c, "plain", &encode, name);
        free(text);
    }
    dibit_tokenizer_destroy(&tokenizer);
    json_decref(golden);
}

static void test_matches_the_package(void **state) {
    (void)state;
    DIR *dir = opendir(DATA);
    assert_non_null(dir);
    size_t n_files = 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (!strstr(entry->d_name, ".golden.json")) continue;
        char path[1024];
        snprintf(path, sizeof path, "%s%s", DATA, entry->d_name);
        check_golden(path);
        n_files++;
    }
    closedir(dir);
    assert_true(n_files >= 12);
}

static void test_pieces_and_ids(void **state) {
    (void)state;
    dibit_tokenizer *t = load(DBT_SOURCE_DIR "/models/smollm2-135m-instruct-2bit/tokenizer.json");
    assert_int_equal(dibit_tokenizer_size(t), 49152);
    assert_int_equal(dibit_tokenizer_id(t, "<|im_end|>"), 2);
    assert_true(dibit_tokenizer_is_special(t, 2));
    assert_false(dibit_tokenizer_is_special(t, 300));
    assert_false(dibit_tokenizer_is_special(t, -1));
    assert_int_equal(dibit_tokenizer_id(t, "no such piece"), -1);
    assert_null(dibit_tokenizer_piece(t, 49152));
    assert_null(dibit_tokenizer_piece(t, -1));
    for (int64_t id = 0; id < 49152; id++)
        assert_int_equal(dibit_tokenizer_id(t, dibit_tokenizer_piece(t, id)), id);
    dibit_tokenizer_destroy(&t);
    assert_null(t);
    dibit_tokenizer_destroy(&t);
}

/* Tokens that take the white space beside them: two of them meet, or another token lies in what the
 * first has taken. The ids are those of the tokenizers package 0.23.3. */
static void test_tokens_that_strip(void **state) {
    (void)state;
    static const char json[] =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\" \":2},\"merges\":[]},"
        "\"added_tokens\":[{\"id\":3,\"content\":\"<r>\",\"rstrip\":true},"
        "{\"id\":4,\"content\":\"<l>\",\"lstrip\":true},{\"id\":5,\"content\":\"\\n\"}]}";
    static const struct {
        const char *text;
        size_t n;
        int64_t ids[5];
    } cases[] = {
        {"a  <l>b", 3, {0, 4, 1}},
        {"a<r>  b", 3, {0, 3, 1}},
        {"  <l>", 1, {4}},
        {"<r>  ", 1, {3}},
        {"<l>  <l>", 2, {4, 4}},
        {"a<r>  <l>b", 4, {0, 3, 4, 1}},
        {"<r>\nb", 3, {3, 5, 1}},
        {"<r> \n  b", 5, {3, 5, 2, 2, 1}},
        {"a<r> \n <l>b", 5, {0, 3, 5, 4, 1}},
    };
    dibit_error error;
    dibit_tokenizer *t = NULL;
    assert_int_equal(
        dibit_tokenizer_load(&(dibit_tokenizer_desc){.data = json, .data_bytes = sizeof json - 1},
                             &t, &error),
        DIBIT_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dibit_tokens got = {0};
        const dibit_encode encode = {.text = cases[i].text, .text_bytes = strlen(cases[i].text)};
        assert_int_equal(dibit_tokenizer_encode(t, &encode, &got, &error), DIBIT_OK);
        assert_int_equal(got.count, cases[i].n);
        assert_memory_equal(got.ids, cases[i].ids, got.count * sizeof *got.ids);
        dibit_tokens_free(&got);
    }
    dibit_tokenizer_destroy(&t);
}

/* A word of a million characters takes n log n: with n^2 this test would not end. */
static void test_long_word(void **state) {
    (void)state;
    dibit_tokenizer *t = load(DATA "gpt2.json");
    const size_t n = 1000000;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, 'a', n);
    dibit_tokens tokens = {0};
    dibit_error error;
    assert_int_equal(
        dibit_tokenizer_encode(t, &(dibit_encode){.text = text, .text_bytes = n}, &tokens, &error),
        DIBIT_OK);
    dibit_text back = {0};
    assert_int_equal(
        dibit_tokenizer_decode(t, &(dibit_decode){.ids = tokens.ids, .n_ids = tokens.count}, &back,
                               &error),
        DIBIT_OK);
    assert_int_equal(back.bytes, n);
    assert_memory_equal(back.data, text, n);
    free(text);
    dibit_text_free(&back);
    dibit_tokens_free(&tokens);
    dibit_tokenizer_destroy(&t);
}

#define MODEL(rest)                                                                                \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[]}" rest "}"

static void test_refuses_bad_files(void **state) {
    (void)state;
    static const struct {
        const char *json;
        dibit_status status;
        const char *word; /* that the sentence has */
    } cases[] = {
        {"", DIBIT_BAD_FILE, "malformed JSON"},
        {"{", DIBIT_BAD_FILE, "malformed JSON"},
        {"[]", DIBIT_BAD_FILE, "no JSON object"},
        {"{}", DIBIT_BAD_FILE, "\"model\""},
        {"{\"model\":1}", DIBIT_BAD_FILE, "the file.model is no object"},
        {"{\"model\":{\"type\":\"Unigram\"}}", DIBIT_UNSUPPORTED, "Unigram"},
        {"{\"model\":{}}", DIBIT_BAD_FILE, "\"vocab\""},
        {"{\"model\":{\"vocab\":[]}}", DIBIT_BAD_FILE, "model.vocab is no object"},
        {"{\"model\":{\"vocab\":{\"a\":\"0\"}}}", DIBIT_BAD_FILE, "the id of \"a\""},
        {"{\"model\":{\"vocab\":{\"a\":-1}}}", DIBIT_BAD_FILE, "the id of \"a\""},
        {"{\"model\":{\"vocab\":{\"a\":4294967296}}}", DIBIT_BAD_FILE, "the id of \"a\""},
        {"{\"model\":{\"vocab\":{\"a\":99999999999999999999}}}", DIBIT_BAD_FILE, "the id of \"a\""},
        {"{\"model\":{\"vocab\":{\"a\":0}}}", DIBIT_BAD_FILE, "\"merges\""},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[1]}}", DIBIT_BAD_FILE, "model.merges[0]"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", DIBIT_BAD_FILE, "model.merges[0]"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",2]]}}", DIBIT_BAD_FILE, "merges[0]"},
        {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", DIBIT_BAD_FILE, "vocabulary"},
        {"{\"model\":{\"vocab\":{},\"merges\":[],\"unk_token\":\"u\"}}", DIBIT_BAD_FILE,
         "unk_token"},
        {"{\"model\":{\"vocab\":{},\"merges\":[],\"dropout\":0.5}}", DIBIT_UNSUPPORTED, "dropout"},
        {MODEL(",\"normalizer\":1"), DIBIT_BAD_FILE, "normalizer is no object"},
        {MODEL(",\"normalizer\":{\"type\":\"Precompiled\"}"), DIBIT_UNSUPPORTED, "Precompiled"},
        {MODEL(",\"normalizer\":{\"type\":\"Sequence\"}"), DIBIT_BAD_FILE, "\"normalizers\""},
        {MODEL(",\"pre_tokenizer\":{\"type\":\"Metaspace\"}"), DIBIT_UNSUPPORTED, "Metaspace"},
        {MODEL(",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,"
               "\"pattern\":{\"Regex\":\"(\"}}"),
         DIBIT_UNSUPPORTED, "regular expression"},
        {MODEL(",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,"
               "\"pattern\":{\"Regex\":\"[a&&[b]]\"}}"),
         DIBIT_UNSUPPORTED, "classes inside classes"},
        {MODEL(",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Glued\"}"), DIBIT_BAD_FILE,
         "Glued"},
        {MODEL(",\"decoder\":{\"type\":\"Strip\",\"content\":\"ab\",\"start\":1,\"stop\":0}"),
         DIBIT_BAD_FILE, "one character"},
        {MODEL(",\"decoder\":{\"type\":\"WordPiece\"}"), DIBIT_UNSUPPORTED, "WordPiece"},
        {MODEL(",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]}"),
         DIBIT_UNSUPPORTED, "0 times"},
        {MODEL(",\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"a\",0],\"sep\":[]}"),
         DIBIT_BAD_FILE, "post_processor"},
        {MODEL(",\"added_tokens\":{}"), DIBIT_BAD_FILE, "added_tokens is no array"},
        {MODEL(",\"added_tokens\":[7]"), DIBIT_BAD_FILE, "added_tokens[0]"},
        {MODEL(",\"added_tokens\":[{\"content\":\"x\",\"id\":-5}]"), DIBIT_BAD_FILE, "-5"},
        {MODEL(",\"added_tokens\":[{\"content\":\"x\",\"id\":2147483647}]"), DIBIT_BAD_FILE,
         "2147483647"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dibit_error error = {0};
        dibit_tokenizer *tokenizer = NULL;
        const dibit_status status = dibit_tokenizer_load(
            &(dibit_tokenizer_desc){.data = cases[i].json, .data_bytes = strlen(cases[i].json)},
            &tokenizer, &error);
        if (status != cases[i].status || !strstr(error.text, cases[i].word) || tokenizer)
            fail_msg("%s: status %d: %s", cases[i].json, status, error.text);
        assert_int_equal(error.status, status);
    }
}

/* The ids that jansson's tree says, or false: malformed, or not what this test compares (merges, other types). */
static bool is_plain_vocabulary(const json_t *json, const json_t **vocab) {
    const json_t *model = json_object_get(json, "model");
    const json_t *merges = json_object_get(model, "merges");
    const char *type = json_string_value(json_object_get(model, "type"));
    *vocab = json_object_get(model, "vocab");
    if (!json_is_object(*vocab) || !json_is_array(merges) || json_array_size(merges) ||
        json_object_size(model) != 3 || !type || strcmp(type, "BPE") != 0) {
        return false;
    }
    const char *key;
    json_t *id;
    json_object_foreach((json_t *)*vocab, key, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= 1 << 22)
            return false;
    }
    return true;
}

/* A file is read as from the tree that jansson makes of it; counts[whether it is read]. */
static void check_like_jansson(const char *text, size_t bytes, uint32_t counts[2]) {
    json_error_t where;
    dibit_error error = {0};
    json_t *json = json_loadb(text, bytes, JSON_ALLOW_NUL, &where);
    const json_t *vocab;
    dibit_tokenizer *t = NULL;
    const dibit_tokenizer_desc desc = {.data = text, .data_bytes = bytes};
    const dibit_status status = dibit_tokenizer_load(&desc, &t, &error);
    if (!json || is_plain_vocabulary(json, &vocab)) {
        if ((status == DIBIT_OK) != (json != NULL))
            fail_msg("%.*s: jansson says '%s', we say '%s'", (int)bytes, text,
                     json ? "" : where.text, error.text);
        counts[json != NULL]++;
    }
    if (json && t && is_plain_vocabulary(json, &vocab)) {
        const char *piece;
        json_t *id;
        json_object_foreach((json_t *)vocab, piece, id) {
            assert_int_equal(dibit_tokenizer_id(t, piece), json_integer_value(id));
        }
    }
    dibit_tokenizer_destroy(&t);
    json_decref(json);
}

static void test_reads_as_jansson(void **state) {
    (void)state;
    static const char *const fragments[] = {
        "a",       "\\n",     "\\\"",       "\\u0041",         "\\u00e9", "\\ud83d\\ude00",
        "\\ud83d", "\\ude00", "\\ud83d\\n", "\\ud83d\\ud83d",  "\\x",     "\\u12",
        "\\u12G4", "\\",      "\"",         "\xc3\xa9",        "\xc3",    "\xed\xa0\x80",
        "\x01",    "\x7f",    "\n",         "\\/\\b\\f\\r\\t", "\\u0000", "\xf0\x9f\x98\x80"};
    static const char base[] =
        "{ \"x\" : [1, {\"y\": \"]\\\"\"}, -1.5e3, null],\n\"model\" : {\"merges\":[ ] ,\"vocab\":{"
        "\"a\" : 0 ,\"b\":1,\n\"c\":200},\"type\":\"BPE\" } , \"normalizer\":null}";
    static const char alphabet[] = "{}[]\",:\\ 019aub-.\n";
    uint64_t random = 1;
    uint32_t counts[2][2] = {{0}};
    for (int round = 0; round < 40000; round++) {
        char text[512];
        size_t n = 0;
        if (round % 2) {
            char key[64] = "";
            for (uint64_t k = dbt_test_random(&random) % 4; k-- > 0;)
                strcat(
                    key,
                    fragments[dbt_test_random(&random) % (sizeof fragments / sizeof *fragments)]);
            n = (size_t)snprintf(
                text, sizeof text,
                "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"%s\":7},\"merges\":[]}}", key);
        } else {
            memcpy(text, base, sizeof base);
            n = sizeof base - 1;
            for (uint64_t k = dbt_test_random(&random) % 3; k-- > 0;) {
                const size_t at = dbt_test_random(&random) % n;
                const char c = alphabet[dbt_test_random(&random) % (sizeof alphabet - 1)];
                const uint64_t what = dbt_test_random(&random) % 3;
                if (what == 0) text[at] = c;
                if (what == 1) memmove(text + at, text + at + 1, n-- - at);
                if (what == 2) {
                    memmove(text + at + 1, text + at, n++ - at);
                    text[at] = c;
                }
            }
        }
        check_like_jansson(text, n, counts[round % 2]);
    }
    for (int i = 0; i < 4; i++) assert_true(counts[i / 2][i % 2] > 1000);
}

/* An expression that would take forever gives a status. */
static void test_runaway_expression(void **state) {
    (void)state;
    static const char json[] =
        MODEL(",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,"
              "\"pattern\":{\"Regex\":\"(a|aa|a?)+[^a]\"}}");
    dibit_error error = {0};
    dibit_tokenizer *t = NULL;
    assert_int_equal(
        dibit_tokenizer_load(&(dibit_tokenizer_desc){.data = json, .data_bytes = sizeof json - 1},
                             &t, &error),
        DIBIT_OK);
    char text[64];
    memset(text, 'a', sizeof text);
    dibit_tokens tokens = {0};
    assert_int_equal(
        dibit_tokenizer_encode(t, &(dibit_encode){.text = text, .text_bytes = sizeof text}, &tokens,
                               &error),
        DIBIT_BAD_FILE);
    assert_int_equal(tokens.count, 0);
    dibit_tokens_free(&tokens);
    dibit_tokenizer_destroy(&t);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        for (int i = 1; i < argc; i++) check_golden(argv[i]);
        printf("%zu cases agree\n", n_checked);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_the_package), cmocka_unit_test(test_pieces_and_ids),
        cmocka_unit_test(test_long_word),           cmocka_unit_test(test_refuses_bad_files),
        cmocka_unit_test(test_reads_as_jansson),    cmocka_unit_test(test_runaway_expression),
        cmocka_unit_test(test_tokens_that_strip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
