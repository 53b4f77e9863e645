/* The kernels of one family and bit width: see cpu_widths_tmpl.h, which alone includes this. */
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
