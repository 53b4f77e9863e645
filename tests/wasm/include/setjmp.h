/* wasi-libc of Debian 12 has no setjmp: clang compiles it to exceptions (-mllvm -wasm-enable-sjlj), and
 * tests/wasm/setjmp.c has the calls that it makes. For cmocka and the tests alone. */
#ifndef DBT_TESTS_WASM_SETJMP_H
#define DBT_TESTS_WASM_SETJMP_H

typedef struct dbt_wasm_jump {
    void *call; /* the invocation of the function that called setjmp */
    unsigned label;
    struct {
        void *env;
        int value;
    } thrown;
} jmp_buf[1];

int setjmp(jmp_buf env) __attribute__((returns_twice));
_Noreturn void longjmp(jmp_buf env, int value);

#endif
