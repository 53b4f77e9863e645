/* The kernels of one family and bit width: included once per BITS by a file that defines SUFFIX,
 * FORMS(RUN), which lists its forms, and for each form a static inline run_<form>(task, bits), into
 * which the constant is compiled here. */
#define CAT_(a, b, c, d, e, f) a##b##c##d##e##f
#define CAT(a, b, c, d, e, f) CAT_(a, b, c, d, e, f)
#define RUN(form)                                                                                  \
    void CAT(dbt_nbits_b, BITS, _, form, _, SUFFIX)(const dbt_nbits_task *task) {                  \
        run_##form(task, BITS);                                                                    \
    }
FORMS(RUN)
#undef RUN
#undef CAT
#undef CAT_
#undef BITS
