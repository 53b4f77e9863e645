// The public headers in C++17: they compile, link, and their enums and initialisers are usable.
#include "dibit/debug.h"
#include "dibit/dibit.h"
#include "dibit/lm.h"

#include <cstring>

int main() {
    dibit_tensor tensor = {};
    tensor.type = DIBIT_TYPE_FLOAT16;
    dibit_sampling sampling{};
    dibit_diff_desc diff{};
    return tensor.data == nullptr && diff.tokens == 0 && sampling.top_k == 0 && dibit_type_bits(tensor.type) == 16 &&
                   std::strcmp(dibit_status_name(DIBIT_OK), "OK") == 0
               ? 0
               : 1;
}
