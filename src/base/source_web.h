/* Byte sources that the page around a wasm build reads: from the network, a Blob, a cache. They are told
 * by a number. The page's side is web/src/source.ts. */
#ifndef DBT_BASE_SOURCE_WEB_H
#define DBT_BASE_SOURCE_WEB_H

#include "base/error.h"

/* The callbacks for page source `number` of so many bytes. read answers PENDING while the page
 * fetches; close forgets the source. */
dibit_source dbt_source_web(uint32_t number, uint64_t size);
/* The number, or -1 for a source that is not the page's. */
int64_t dbt_source_web_number(const dibit_source *source);

#endif
