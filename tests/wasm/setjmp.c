/* What clang 19's lowering of setjmp and longjmp to WebAssembly exceptions calls. */
#include <setjmp.h>

void __wasm_setjmp(struct dbt_wasm_jump *env, unsigned label, void *call);
unsigned __wasm_setjmp_test(const struct dbt_wasm_jump *env, const void *call);
void __wasm_longjmp(struct dbt_wasm_jump *env, int value);

enum { C_LONGJMP = 1 }; /* the tag __c_longjmp */

void __wasm_setjmp(struct dbt_wasm_jump *env, unsigned label, void *call) {
    env->call = call;
    env->label = label;
}

/* Which setjmp of this call the jump goes to; 0: none, it goes on outwards. */
unsigned __wasm_setjmp_test(const struct dbt_wasm_jump *env, const void *call) {
    return env->call == call ? env->label : 0;
}

void __wasm_longjmp(struct dbt_wasm_jump *env, int value) {
    env->thrown.env = env;
    env->thrown.value = value ? value : 1;
    __builtin_wasm_throw(C_LONGJMP, &env->thrown);
}
