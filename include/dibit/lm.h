/* dibit/lm.h - language models: folders, tokenizers, chat prompts, sampling, generation.
 *
 * The engine (dibit/dibit.h) runs graphs on tensors; this layer turns text into tokens and tokens
 * into text. It comes as a library of its own, dibit_lm, on top of the engine's public interface.
 *
 * WHAT IT DOES NOT DO
 *   It does not load or plan the model: that is dibit_model_load and dibit_session_create, with the
 *   path that dibit_lm_get_info gives. Tokenizers: byte-level BPE (GPT-2, Llama-3, Qwen, SmolLM) and
 *   plain BPE, no others yet. Chat templates: the ChatML family; others are UNSUPPORTED.
 *
 * STEP BY STEP
 *     dibit_error error;
 *     dibit_lm *lm = NULL;
 *     if (dibit_lm_load(&(dibit_lm_desc){.path = "models/smollm2"}, &lm, &error)) ...
 *     dibit_lm_info info;
 *     dibit_lm_get_info(lm, &info);
 *     dibit_model *model = NULL;
 *     if (dibit_model_load(&(dibit_model_desc){.path = info.model_path}, &model, &error)) ...
 *     dibit_session *session = NULL;
 *     if (dibit_session_create(model, NULL, &session, &error)) ...
 *     dibit_generator *generator = NULL;
 *     if (dibit_generator_create(&(dibit_generator_desc){.model = model, .session = session},
 *                                &generator, &error)) ...
 *     dibit_message message = {.role = "user", .content = "Why is the sky blue?"};
 *     dibit_tokens prompt = {0};
 *     if (dibit_lm_chat_encode(lm, &(dibit_chat){.messages = &message, .n_messages = 1,
 *                                                .add_generation_prompt = true},
 *                              &prompt, &error)) ...
 *     dibit_state *state = NULL;
 *     if (dibit_state_create(session, NULL, &state, &error)) ...
 *     int64_t answer[256];
 *     dibit_sequence sequence = {.state = state, .prompt = prompt.ids, .n_prompt = prompt.count,
 *                                .stop = info.stop_tokens, .n_stop = info.n_stop_tokens,
 *                                .sampling = info.sampling, .tokens = answer, .max_tokens = 256};
 *     if (dibit_generator_run(generator, &(dibit_generation){.sequences = &sequence,
 *                                                            .n_sequences = 1}, &error)) ...
 *     dibit_text text = {0};
 *     if (dibit_tokenizer_decode(dibit_lm_tokenizer(lm), &(dibit_decode){
 *             .ids = answer, .n_ids = sequence.n_tokens, .skip_special = true}, &text, &error)) ...
 *
 * MEMORY
 *   As in dibit.h. dibit_tokens and dibit_text are growing arrays that the caller owns: start with
 *   {0}, functions append to them, dibit_tokens_free / dibit_text_free end them. After a failure
 *   they are as before. While tokenizer.json is loaded it lies in memory as a tree of six times its
 *   bytes; afterwards a piece of the vocabulary takes about 60 bytes. Some systems' malloc keeps the
 *   pages of such a tree: a program that minds calls malloc_trim (glibc), as dibit run does.
 *
 * WHEN A GPU FAILS
 *   In the middle of a generation the device may be lost, or have no memory for a longer cache. If the
 *   session was made with cpu_fallback, poll has the session planned again for the CPU, feeds it every
 *   sequence from its first token, and goes on: no token is lost or said twice, and draws with a seed are what
 *   they would have been. That takes a while, but no poll takes longer than others. dibit_session_why says
 *   what has happened. For it the generator needs all tokens of each sequence: `past` has to be there for
 *   states that were not empty. Without cpu_fallback, or without `past`, poll answers the status
 *   (DEVICE_LOST, OUT_OF_MEMORY), and sequences keep the tokens they have. Other states of the session are
 *   lost too (dibit_state_is_lost): a generation that continues one fills it again from `past`.
 *
 * THREADS
 *   A dibit_lm and a dibit_tokenizer do not change after loading: any number of threads may use
 *   them. A generator and a text stream belong to one thread at a time, as sessions do.
 */
#ifndef DIBIT_LM_H
#define DIBIT_LM_H

#include "dibit/dibit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Growing arrays ----------------------------------------------------------------------- */

typedef struct dibit_tokens {
    int64_t *ids; /* malloc's */
    size_t count;
    size_t capacity;
} dibit_tokens;

typedef struct dibit_text {
    char *data; /* malloc's; NUL-terminated once something was appended, also if that was empty */
    size_t bytes;
    size_t capacity;
} dibit_text;

/* Free the memory and set everything to 0. NULL does nothing. */
DIBIT_API void dibit_tokens_free(dibit_tokens *tokens);
DIBIT_API void dibit_text_free(dibit_text *text);
/* Append; OUT_OF_MEMORY. */
DIBIT_API dibit_status dibit_tokens_append(dibit_tokens *tokens, const int64_t *ids, size_t count,
                                           dibit_error *error);
DIBIT_API dibit_status dibit_text_append(dibit_text *text, const char *bytes, size_t n_bytes,
                                         dibit_error *error);

/* ---- Tokenizers --------------------------------------------------------------------------- */

typedef struct dibit_tokenizer dibit_tokenizer;

/* One of path and data is set. */
typedef struct dibit_tokenizer_desc {
    const char *path; /* tokenizer.json, as Hugging Face's tokenizers package writes it */
    const char *data; /* its content; not used after the call */
    size_t data_bytes;
    const char *name; /* how errors call the file; default: path, or "tokenizer.json" */
} dibit_tokenizer_desc;

/* IO, BAD_FILE (malformed), UNSUPPORTED (another kind of model, normalizer, ...), OUT_OF_MEMORY. */
DIBIT_API dibit_status dibit_tokenizer_load(const dibit_tokenizer_desc *desc, dibit_tokenizer **out,
                                            dibit_error *error);
DIBIT_API void dibit_tokenizer_destroy(dibit_tokenizer **tokenizer);

/* Ids are in [0, size): the highest id plus one. Not every id below needs to have a piece. */
DIBIT_API uint32_t dibit_tokenizer_size(const dibit_tokenizer *tokenizer);
/* The piece of an id as the file spells it (byte-level pieces in GPT-2's alphabet: "\u0120the" for
 * " the"), NUL-terminated; NULL when the id has none. Lives as long as the tokenizer. */
DIBIT_API const char *dibit_tokenizer_piece(const dibit_tokenizer *tokenizer, int64_t id);
/* The id of a piece, or -1. */
DIBIT_API int64_t dibit_tokenizer_id(const dibit_tokenizer *tokenizer, const char *piece);
/* Whether the file calls the id a special token (<|im_end|>, ...). */
DIBIT_API bool dibit_tokenizer_is_special(const dibit_tokenizer *tokenizer, int64_t id);

typedef struct dibit_encode {
    const char *text; /* UTF-8; each invalid sequence counts as U+FFFD, split as Unicode advises */
    size_t text_bytes;
    bool add_special;   /* apply the file's post-processor: <s>, [CLS], ... around the text */
    bool allow_special; /* special tokens written in the text become those tokens; leave it false
                           for text from strangers: then they are spelled out */
} dibit_encode;

/* Appends the text's tokens to *tokens. TOO_LARGE: more than 2^31 - 1 bytes; BAD_FILE: a regular
 * expression of the file exceeded its limits; OUT_OF_MEMORY. */
DIBIT_API dibit_status dibit_tokenizer_encode(const dibit_tokenizer *tokenizer,
                                              const dibit_encode *encode, dibit_tokens *tokens,
                                              dibit_error *error);
/* The number of tokens that encode would append. */
DIBIT_API dibit_status dibit_tokenizer_count(const dibit_tokenizer *tokenizer,
                                             const dibit_encode *encode, size_t *count,
                                             dibit_error *error);

typedef struct dibit_decode {
    const int64_t *ids; /* [n_ids]; ids without a piece are left out */
    size_t n_ids;
    bool skip_special; /* leave special tokens out */
} dibit_decode;

/* Appends the text of the tokens: valid UTF-8, where bytes that are none become U+FFFD.
 * OUT_OF_MEMORY. */
DIBIT_API dibit_status dibit_tokenizer_decode(const dibit_tokenizer *tokenizer,
                                              const dibit_decode *decode, dibit_text *text,
                                              dibit_error *error);

/* Decodes a stream token by token. What it has appended so far never ends inside a character: a
 * token that ends in the middle of one is held back until the rest has come. All that was appended,
 * flush included, is what dibit_tokenizer_decode gives for the whole list; but where a file has byte
 * pieces (<0x..>) and a run of them is no UTF-8, what was said of the run before that was certain. */
typedef struct dibit_text_stream dibit_text_stream;

DIBIT_API dibit_status dibit_text_stream_create(const dibit_tokenizer *tokenizer, bool skip_special,
                                                dibit_text_stream **out, dibit_error *error);
DIBIT_API void dibit_text_stream_destroy(dibit_text_stream **stream);
/* Takes a token and appends the text that is now certain, perhaps none. */
DIBIT_API dibit_status dibit_text_stream_push(dibit_text_stream *stream, int64_t id,
                                              dibit_text *text, dibit_error *error);
/* Appends what was held back and makes the stream new. */
DIBIT_API dibit_status dibit_text_stream_flush(dibit_text_stream *stream, dibit_text *text,
                                               dibit_error *error);

/* ---- Sampling ----------------------------------------------------------------------------- */

/* How the next token is chosen from its logits, in this order: repetition penalty, temperature,
 * top_k, top_p, min_p, draw. All zero: the likeliest token (the lowest id of equals). */
typedef struct dibit_sampling {
    float temperature; /* logits are divided by it; 0: the likeliest token, no draw */
    uint32_t top_k;    /* only the k likeliest; 0: all */
    float top_p;       /* then only the likeliest that together have probability p; 0, 1: all */
    float min_p;       /* then only those with at least p times the best's probability */
    float repetition_penalty; /* > 0; logits of tokens that occurred are divided by it when positive
                                 and multiplied when negative (Keskar et al. 2019); 0, 1: none */
    uint64_t seed;            /* the same seed, logits and options draw the same tokens */
} dibit_sampling;

/* ---- Generation --------------------------------------------------------------------------- */

typedef struct dibit_generator dibit_generator;

/* The model has inputs input_ids int64 [B, S] and, each if it likes, attention_mask int64
 * [B, past + S] and position_ids int64 [B, S]; past tensors, kept in states; and an output logits,
 * float or float16 [B, S, vocabulary]. */
typedef struct dibit_generator_desc {
    dibit_model *model;      /* the session's; borrowed until the generator is destroyed */
    dibit_session *session;  /* borrowed likewise; not to be used while a generation runs */
    uint64_t context_length; /* most tokens a state may hold; default: no limit */
    uint32_t max_chunk;      /* tokens fed in one run; default 512 */
    const dibit_allocator *allocator; /* copied */
} dibit_generator_desc;

/* UNSUPPORTED: the model's inputs or outputs are not as above. */
DIBIT_API dibit_status dibit_generator_create(const dibit_generator_desc *desc,
                                              dibit_generator **out, dibit_error *error);
DIBIT_API void dibit_generator_destroy(dibit_generator **generator);

/* Why a sequence ended. */
typedef enum dibit_finish {
    DIBIT_FINISH_NONE = 0,    /* it has not */
    DIBIT_FINISH_STOP = 1,    /* a stop token came; it is in stop_token and not among tokens */
    DIBIT_FINISH_LENGTH = 2,  /* max_tokens were generated */
    DIBIT_FINISH_CONTEXT = 3, /* the state holds context_length tokens */
    DIBIT_FINISH_CANCELLED = 4
} dibit_finish;

/* One sequence to continue. The state holds its past, and afterwards also the prompt and all tokens
 * that were fed to choose the next: with n_tokens > 0 all but the last, after FINISH_STOP all of
 * them. dibit_state_length tells. Another turn feeds what it does not yet hold, and more. */
typedef struct dibit_sequence {
    dibit_state *state;    /* borrowed; no other sequence of the call has the same */
    const int64_t *prompt; /* [n_prompt], borrowed until the generation ends; at least one token */
    size_t n_prompt;
    const int64_t *past; /* [n_past], borrowed likewise: the tokens that the state holds, for the */
    size_t
        n_past; /* repetition penalty, and, when they are all there, to fill the state again after
                            its device failed; may be left out */
    const int64_t *stop; /* [n_stop], borrowed likewise: tokens that end the sequence */
    size_t n_stop;
    dibit_sampling sampling;
    int64_t *tokens;   /* [max_tokens], owned by the caller: filled one after the other */
    size_t max_tokens; /* at least 1 */
    /* Results, up to date after every poll. */
    size_t n_tokens;
    dibit_finish finish;
    int64_t stop_token; /* with FINISH_STOP */
} dibit_sequence;

/* Called for every token as it comes, by poll; return false to cancel. */
typedef bool (*dibit_on_token)(void *user, uint32_t sequence, int64_t token);

typedef struct dibit_generation {
    dibit_sequence *sequences; /* [n_sequences], borrowed until the generation ends */
    uint32_t n_sequences;
    dibit_on_token on_token; /* may be NULL */
    void *on_token_user;
} dibit_generation;

/* Prompts are fed one sequence after the other, in chunks; then all sequences that go on take one
 * token a run, as a batch. Tokens do not depend on the other sequences.
 *
 * begin checks everything before it changes anything. BAD_ARGUMENT; OUT_OF_RANGE: a token beyond
 * the vocabulary; CAPACITY: state and prompt are longer than context_length; BAD_STATE: another
 * generation runs; DEVICE_LOST: a state is lost and `past` does not have its tokens; OUT_OF_MEMORY. */
DIBIT_API dibit_status dibit_generator_begin(dibit_generator *generator,
                                             const dibit_generation *generation,
                                             dibit_error *error);
/* Goes on a little. PENDING: poll again. OK: every sequence has finished. CANCELLED: on_token
 * returned false. Otherwise the engine's status; the sequences keep what they have, and states hold
 * what was fed before the run that failed. BAD_STATE: no generation runs. */
DIBIT_API dibit_status dibit_generator_poll(dibit_generator *generator, dibit_error *error);
/* Ends a generation that was begun: its unfinished sequences have FINISH_CANCELLED, and their states
 * hold what was fed before the run that was interrupted. Without one it does nothing. */
DIBIT_API void dibit_generator_cancel(dibit_generator *generator);
/* begin, then poll until it is not PENDING. */
DIBIT_API dibit_status dibit_generator_run(dibit_generator *generator,
                                           const dibit_generation *generation, dibit_error *error);

/* A text to judge, by itself: with an empty past. */
typedef struct dibit_score {
    const int64_t *tokens; /* [n_tokens], at least 2 */
    size_t n_tokens;
    double
        *nll; /* [n_tokens - 1], written: -ln p(tokens[i + 1] | tokens[0 .. i]), in float64 from the
                    logits as the model gives them. Perplexity is exp of the mean. */
} dibit_score;

/* Runs to the end, in chunks whose logits take at most 32 MB. Statuses as begin and poll. */
DIBIT_API dibit_status dibit_generator_score(dibit_generator *generator, const dibit_score *score,
                                             dibit_error *error);

/* The length of the vocabulary axis of logits, once a run has shown it; before that what the model
 * declares, or 0 when it is symbolic. */
DIBIT_API uint32_t dibit_generator_vocabulary(const dibit_generator *generator);

/* ---- Model folders ------------------------------------------------------------------------ */

typedef struct dibit_lm dibit_lm;

typedef struct dibit_lm_desc {
    const char *path;  /* a folder as Hugging Face, onnxruntime-genai or transformers.js have it; or
                          a .onnx file inside one (also inside its folder onnx/) */
    const char *model; /* the model file, relative to the folder; default: the one of
                          genai_config.json; model.onnx; onnx/model_X.onnx of the fewest bits;
                          onnx/model.onnx */
} dibit_lm_desc;

typedef struct dibit_lm_info {
    const char *folder;
    const char *model_path;     /* for dibit_model_load */
    const char *model_type;     /* "llama"; "" when no file says */
    uint64_t context_length;    /* most tokens the model was made for; 0 when no file says */
    const int64_t *stop_tokens; /* [n_stop_tokens]: end-of-text and end-of-turn tokens */
    size_t n_stop_tokens;
    dibit_sampling sampling; /* as generation_config.json or genai_config.json advise */
    const char *chat;        /* "chatml"; "" when there is no template; "unsupported" */
} dibit_lm_info;

/* Reads the folder's JSON files, the tokenizer and the chat template; not the model. Files other
 * than the model and tokenizer.json may be missing. IO, BAD_FILE, UNSUPPORTED, NOT_FOUND: no model
 * file; OUT_OF_MEMORY. */
DIBIT_API dibit_status dibit_lm_load(const dibit_lm_desc *desc, dibit_lm **out, dibit_error *error);
DIBIT_API void dibit_lm_destroy(dibit_lm **lm);
/* Strings and arrays live as long as lm. */
DIBIT_API void dibit_lm_get_info(const dibit_lm *lm, dibit_lm_info *info);
/* Owned by lm. */
DIBIT_API const dibit_tokenizer *dibit_lm_tokenizer(const dibit_lm *lm);

/* ---- Chat --------------------------------------------------------------------------------- */

typedef struct dibit_message {
    const char *role;    /* "system", "user", "assistant", ... */
    const char *content; /* UTF-8 */
} dibit_message;

typedef struct dibit_chat {
    const dibit_message *messages; /* [n_messages], at least 1 */
    size_t n_messages;
    size_t n_said; /* messages at the front that the model has seen or said, the last one being its
                      own answer: only what follows is written, from the end of that turn on */
    bool add_generation_prompt; /* end with the opening of the assistant's turn */
} dibit_chat;

/* Appends the conversation as the model's template writes it. UNSUPPORTED: the folder has no
 * template, or one that is not understood. */
DIBIT_API dibit_status dibit_lm_chat_format(const dibit_lm *lm, const dibit_chat *chat,
                                            dibit_text *text, dibit_error *error);
/* The same as tokens. Special tokens written inside a message's content are spelled out: only the
 * template can open or close a turn. */
DIBIT_API dibit_status dibit_lm_chat_encode(const dibit_lm *lm, const dibit_chat *chat,
                                            dibit_tokens *tokens, dibit_error *error);

#ifdef __cplusplus
}
#endif

#endif
