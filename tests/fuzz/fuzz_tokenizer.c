/* Fuzz target: tokenizer.json, and after a NUL byte text to encode and ids to decode. */
#include "fuzz.h"

#include <string.h>

#include "dibit/lm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *json = (const char *)data;
    const uint8_t *end = memchr(data, 0, size);
    const size_t json_bytes = end ? (size_t)(end - data) : size;
    const char *text = end ? (const char *)end + 1 : "";
    const size_t text_bytes = end ? size - json_bytes - 1 : 0;
    dibit_tokenizer *tokenizer = NULL;
    dibit_error error;
    const dibit_tokenizer_desc desc = {.data = json, .data_bytes = json_bytes};
    if (dibit_tokenizer_load(&desc, &tokenizer, &error) != DIBIT_OK) return 0;
    dibit_tokens tokens = {0};
    dibit_text whole = {0}, piece = {0};
    for (unsigned flags = 0; flags < 4; flags++) {
        const dibit_encode encode = {.text = text,
                                     .text_bytes = text_bytes,
                                     .add_special = flags & 1,
                                     .allow_special = flags >> 1};
        (void)dibit_tokenizer_encode(tokenizer, &encode, &tokens, &error);
    }
    for (size_t i = 0; i < text_bytes; i++)
        (void)dibit_tokens_append(&tokens, &(int64_t){(uint8_t)text[i] - 3}, 1, &error);
    (void)dibit_tokenizer_decode(
        tokenizer, &(dibit_decode){.ids = tokens.ids, .n_ids = tokens.count}, &whole, &error);
    dibit_text_stream *stream = NULL;
    if (dibit_text_stream_create(tokenizer, true, &stream, &error) == DIBIT_OK) {
        for (size_t i = 0; i < tokens.count && i < 500; i++)
            (void)dibit_text_stream_push(stream, tokens.ids[i], &piece, &error);
        (void)dibit_text_stream_flush(stream, &piece, &error);
    }
    dibit_text_stream_destroy(&stream);
    dibit_text_free(&piece);
    dibit_text_free(&whole);
    dibit_tokens_free(&tokens);
    dibit_tokenizer_destroy(&tokenizer);
    return 0;
}
