// Which kernels there are, and which of them this processor can run.

#include "engine.hpp"

#define BISQUIT_DECODER(processor, precision)                                       \
    namespace processor##_##precision {                                             \
        void decode_##precision(const Model&, Group&, const Task&, Barrier&, int);  \
        void read_##precision(const Model&, Group&, const Reading&, Barrier&, int); \
        constexpr DecoderKernels kernels = {decode_##precision, read_##precision};  \
    }

#define BISQUIT_KERNELS(name)                                                                                \
    BISQUIT_DECODER(name, float32)                                                                           \
    BISQUIT_DECODER(name, int8)                                                                              \
    namespace name##_pictures {                                                                              \
        void project_picture(const TokenizerModel&, const Canvas&, const uint8_t*, float*);                  \
        void decode_picture(const TokenizerModel&, const Canvas&, const int8_t*, uint8_t*);                  \
        void slopes_of_picture(const TokenizerModel&, const Canvas&, const int8_t*, const uint8_t*, float*); \
        constexpr TokenizerKernels kernels = {project_picture, decode_picture, slopes_of_picture};           \
    }                                                                                                        \
    const Kernels name##_kernels = {#name, name##_float32::kernels, name##_int8 ::kernels, name##_pictures::kernels};

namespace bisquit {

BISQUIT_KERNELS(baseline)
#ifdef BISQUIT_X86
BISQUIT_KERNELS(avx2)
BISQUIT_KERNELS(avx512)
#endif

std::vector<const Kernels*> usable_kernels() {
    std::vector<const Kernels*> usable;
#ifdef BISQUIT_X86
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("avx512vnni");
    if (has_avx2 && has_avx512) usable.push_back(&avx512_kernels);
    if (has_avx2) usable.push_back(&avx2_kernels);
#endif
    usable.push_back(&baseline_kernels);
    return usable;
}

const Kernels& find_kernels(const std::string& name) {
    for (const Kernels* kernels : usable_kernels())
        if (name.empty() || name == kernels->name) return *kernels;
    throw std::invalid_argument("there are no kernels '" + name + "' for this processor");
}

}  // namespace bisquit
