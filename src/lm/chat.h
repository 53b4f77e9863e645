/* Chat templates that are recognised instead of run: the ChatML family. The seam for an engine that
 * runs any Jinja template is these two functions. */
#ifndef DBT_LM_CHAT_H
#define DBT_LM_CHAT_H

#include "lm/tokenizer.h"

typedef enum dbt_chat_kind {
    DBT_CHAT_NONE, /* the folder has no template */
    DBT_CHAT_UNSUPPORTED,
    DBT_CHAT_CHATML
} dbt_chat_kind;

typedef struct dbt_chat_template {
    dbt_chat_kind kind;
    dibit_text
        system; /* CHATML: what it says when a conversation has no system message; may be empty */
    bool has_system;
} dbt_chat_template;

/* text: the Jinja source, or NULL. */
dibit_status dbt_chat_recognise(const char *text, dbt_chat_template *out, dibit_error *error);
void dbt_chat_free(dbt_chat_template *chat);

/* Appends the conversation to text, and to plain (unless NULL) where in it message contents lie. */
dibit_status dbt_chat_format(const dbt_chat_template *template_, const dibit_chat *chat,
                             dibit_text *text, dbt_words *plain, dibit_error *error);

#endif
