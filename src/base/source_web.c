/* Byte sources of the page: see source_web.h. */
#include "base/source_web.h"

#define HOST(name) __attribute__((import_module("dibit_source"), import_name(name)))

/* Copies bytes to dst, or begins to fetch them and answers PENDING; else fills in *error. */
HOST("read")
extern dibit_status host_read(uint32_t number, uint64_t offset, uint64_t bytes, void *dst,
                              dibit_error *error);
HOST("close") extern void host_close(uint32_t number);

static uint32_t number_of(const void *user) { return (uint32_t)(uintptr_t)user; }

static dibit_status web_read(void *user, uint64_t offset, uint64_t bytes, void *dst,
                             dibit_error *error) {
    dibit_error ignored;
    return host_read(number_of(user), offset, bytes, dst, error ? error : &ignored);
}

static void web_close(void *user) { host_close(number_of(user)); }

dibit_source dbt_source_web(uint32_t number, uint64_t size) {
    return (dibit_source){
        .size = size, .read = web_read, .close = web_close, .user = (void *)(uintptr_t)number};
}

int64_t dbt_source_web_number(const dibit_source *source) {
    return source->read == web_read ? (int64_t)number_of(source->user) : -1;
}
