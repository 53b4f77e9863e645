/* ChatML: <|im_start|>ROLE\nCONTENT<|im_end|>\n for every message, and <|im_start|>assistant\n when
 * the model is to answer; many models open with a system message of their own. */
#include "lm/chat.h"

static const char open_turn[] = "<|im_start|>", close_turn[] = "<|im_end|>\n";

/* Whether `needle` begins at s; a newline in needle also matches Jinja's two characters \n. Returns
 * the bytes matched, or 0. */
static size_t starts_with(const char *s, const char *needle) {
    const char *at = s;
    for (; *needle; needle++) {
        if (*needle == '\n' && at[0] == '\\' && at[1] == 'n')
            at += 2;
        else if (*at++ != *needle)
            return 0;
    }
    return (size_t)(at - s);
}

/* The literal '<|im_start|>system\nTEXT<|im_end|>' of the template, if it has one. */
static dibit_status find_system(const char *text, dbt_chat_template *out, dibit_error *error) {
    for (const char *at = text; (at = strstr(at, open_turn)) != NULL; at++) {
        const size_t n = starts_with(at, "<|im_start|>system\n");
        if (n == 0) continue;
        const char *begin = at + n, *end = strstr(begin, "<|im_end|>");
        const size_t plain = strcspn(begin, "'\"{}");
        if (!end || begin + plain < end) continue; /* put together of several strings */
        for (const char *c = begin; c < end; c++) {
            const size_t newline = starts_with(c, "\n");
            DBT_TRY(dibit_text_append(&out->system, newline ? "\n" : c, 1, error));
            if (newline == 2) c++;
        }
        out->has_system = true;
        return DIBIT_OK;
    }
    return DIBIT_OK;
}

dibit_status dbt_chat_recognise(const char *text, dbt_chat_template *out, dibit_error *error) {
    *out = (dbt_chat_template){.kind = text ? DBT_CHAT_UNSUPPORTED : DBT_CHAT_NONE};
    if (!text || !strstr(text, open_turn) || !strstr(text, "<|im_end|>")) return DIBIT_OK;
    /* Turns are written from the message's own role and content. */
    if (!strstr(text, "message['role']") && !strstr(text, "message[\"role\"]") &&
        !strstr(text, "message.role"))
        return DIBIT_OK;
    /* What would change a plain conversation: beginning tokens, dates, reasoning, trimmed contents. */
    static const char *const strange[] = {"bos_token", "strftime", "think",
                                          "trim",      "strip",    "macro"};
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++) {
        if (strstr(text, strange[i])) return DIBIT_OK;
    }
    out->kind = DBT_CHAT_CHATML;
    return find_system(text, out, error);
}

void dbt_chat_free(dbt_chat_template *chat) { dibit_text_free(&chat->system); }

static dibit_status append(dibit_text *text, const char *s, dibit_error *error) {
    return dibit_text_append(text, s, strlen(s), error);
}

static dibit_status append_turn(const char *role, const char *content, dibit_text *text,
                                dbt_words *plain, dibit_error *error) {
    DBT_TRY(append(text, open_turn, error));
    const size_t role_begin = text->bytes;
    DBT_TRY(dbt_utf8_append_lossy(role, strlen(role), text, error));
    if (plain) DBT_TRY(dbt_words_add(plain, role_begin, text->bytes, error));
    DBT_TRY(append(text, "\n", error));
    const size_t begin = text->bytes;
    DBT_TRY(dbt_utf8_append_lossy(content, strlen(content), text, error));
    if (plain) DBT_TRY(dbt_words_add(plain, begin, text->bytes, error));
    return append(text, close_turn, error);
}

dibit_status dbt_chat_format(const dbt_chat_template *template_, const dibit_chat *chat,
                             dibit_text *text, dbt_words *plain, dibit_error *error) {
    DBT_LM_FAIL_IF(!chat || !chat->messages || !chat->n_messages || chat->n_said > chat->n_messages,
                   error, DIBIT_BAD_ARGUMENT, "a chat needs a message");
    DBT_LM_FAIL_IF(template_->kind == DBT_CHAT_NONE, error, DIBIT_UNSUPPORTED,
                   "the model's folder has no chat template: use --raw");
    DBT_LM_FAIL_IF(template_->kind == DBT_CHAT_UNSUPPORTED, error, DIBIT_UNSUPPORTED,
                   "the model's chat template is not of the ChatML family: use --raw");
    if (chat->n_said)
        DBT_TRY(append(text, close_turn, error));
    else if (template_->has_system && strcmp(chat->messages[0].role, "system") != 0)
        DBT_TRY(append_turn("system", template_->system.data ? template_->system.data : "", text,
                            NULL, error));
    for (size_t i = chat->n_said; i < chat->n_messages; i++)
        DBT_TRY(append_turn(chat->messages[i].role, chat->messages[i].content, text, plain, error));
    return chat->add_generation_prompt ? append(text, "<|im_start|>assistant\n", error) : DIBIT_OK;
}
