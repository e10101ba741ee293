#include "simd/dispatch.h"

#include <cstdint>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace riyaz {
namespace {

#if defined(__x86_64__)

struct Registers {
    unsigned eax, ebx, ecx, edx;
};

// A leaf of cpuid; zeros where the CPU has no such leaf.
Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers r{};
    if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
    return r;
}

bool bit(unsigned word, int place) { return (word >> place & 1) != 0; }

// The registers that the operating system saves for a thread (XCR0); 0 if it does not say.
std::uint64_t saved_state() {
    if (!bit(cpuid(1, 0).ecx, 27)) return 0;  // OSXSAVE
    unsigned low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return std::uint64_t{high} << 32 | low;
}

bool saves(std::uint64_t mask) { return (saved_state() & mask) == mask; }

// A second subleaf of leaf 7, which is there only if the first one says so.
unsigned leaf7_1_eax() { return cpuid(7, 0).eax >= 1 ? cpuid(7, 1).eax : 0; }

[[maybe_unused]] bool has_avx2() {
    const Registers one = cpuid(1, 0);
    return saves(0x6) && bit(one.ecx, 12) && bit(one.ecx, 28) && bit(one.ecx, 29)  // FMA, AVX, F16C
           && bit(cpuid(7, 0).ebx, 5);
}

[[maybe_unused]] bool is_intel() { return cpuid(0, 0).ebx == 0x756e6547; }  // "Genu"

[[maybe_unused]] bool has_avxvnni() { return has_avx2() && bit(leaf7_1_eax(), 4); }

[[maybe_unused]] bool has_avx512() {
    const Registers seven = cpuid(7, 0);
    return has_avx2() && saves(0xe6) && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30)  // F, DQ, BW
           && bit(seven.ebx, 31) && bit(seven.ecx, 11);                                                 // VL, VNNI
}

[[maybe_unused]] bool has_avx512bf16() { return has_avx512() && bit(leaf7_1_eax(), 5); }

// Linux gives the tile registers only to a process that asks; all its threads may use them then.
[[maybe_unused]] bool may_use_tiles() {
#if defined(__linux__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

#if defined(RIYAZ_EMULATE_TILES)  // native/tests/emulated_tiles.h
[[maybe_unused]] bool has_amx() { return has_avx512bf16(); }
#else
[[maybe_unused]] bool has_amx() {
    const unsigned edx = cpuid(7, 0).edx;
    return has_avx512bf16() && saves(0x60000) && bit(edx, 22) && bit(edx, 24) && bit(edx, 25)  // BF16, TILE, INT8
           && may_use_tiles();
}
#endif

#elif defined(__aarch64__)

#if defined(__APPLE__)
bool feature(const char* name) {
    int value = 0;
    std::size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value == 1;
}
[[maybe_unused]] bool has_dotprod() {
    return feature("hw.optional.arm.FEAT_DotProd") && feature("hw.optional.arm.FEAT_FP16");
}
[[maybe_unused]] bool has_i8mm() {
    return has_dotprod() && feature("hw.optional.arm.FEAT_I8MM") && feature("hw.optional.arm.FEAT_BF16");
}
#elif defined(__linux__)
// Bits of the kernel's asm/hwcap.h, by number: headers of older systems lack the later names.
[[maybe_unused]] bool has_dotprod() {  // ASIMDDP, ASIMDHP
    return (getauxval(AT_HWCAP) >> 20 & getauxval(AT_HWCAP) >> 10 & 1) != 0;
}
[[maybe_unused]] bool has_i8mm() {
    const unsigned long second = getauxval(AT_HWCAP2);
    return has_dotprod() && (second >> 13 & second >> 14 & 1) != 0;  // I8MM, BF16
}
#else
[[maybe_unused]] bool has_dotprod() { return false; }
[[maybe_unused]] bool has_i8mm() { return false; }
#endif

#endif

bool always() { return true; }

struct Choice {
    const char* name;
    bool (*runs)();
    const Kernels& (*table)();
};

}  // namespace

// What the object files of native/kernels/table.cpp define, one for each instruction set.
#define RIYAZ_TABLE_OF(isa) \
    namespace isa {         \
    const Kernels& table(); \
    }
RIYAZ_TABLE_OF(scalar)
RIYAZ_TABLE_OF(avx2)
RIYAZ_TABLE_OF(avxvnni)
RIYAZ_TABLE_OF(avx512)
RIYAZ_TABLE_OF(avx512bf16)
RIYAZ_TABLE_OF(amx)
RIYAZ_TABLE_OF(dotprod)
RIYAZ_TABLE_OF(i8mm)
#undef RIYAZ_TABLE_OF

namespace {

// Best last.
constexpr Choice kChoices[] = {
    {"scalar", always, scalar::table},
#if defined(RIYAZ_HAVE_AVX2)
    {"avx2", has_avx2, avx2::table},
#endif
#if defined(RIYAZ_HAVE_AVXVNNI)
    {"avxvnni", has_avxvnni, avxvnni::table},
#endif
#if defined(RIYAZ_HAVE_AVX512)
    {"avx512", has_avx512, avx512::table},
#endif
#if defined(RIYAZ_HAVE_AVX512BF16)
    {"avx512bf16", has_avx512bf16, avx512bf16::table},
#endif
#if defined(RIYAZ_HAVE_AMX)
    {"amx", has_amx, amx::table},
#endif
#if defined(RIYAZ_HAVE_DOTPROD)
    {"dotprod", has_dotprod, dotprod::table},
#endif
#if defined(RIYAZ_HAVE_I8MM)
    {"i8mm", has_i8mm, i8mm::table},
#endif
};

const Choice& named(const std::string& name) {
    std::string known;
    for (const Choice& choice : kChoices) {
        if (!choice.runs()) continue;
        if (name == choice.name) return choice;
        known += known.empty() ? choice.name : std::string(", ") + choice.name;
    }
    throw std::invalid_argument("RIYAZ_ISA=" + name + " cannot run here; this CPU and this build have " + known);
}

// Intel's product of bfloat16 in vector registers takes longer than two multiply-adds in float32: a quarter of their
// speed was measured on a Xeon (family 6, model 207).
bool is_slow([[maybe_unused]] const Choice& choice) {
#if defined(__x86_64__)
    return std::string(choice.name) == "avx512bf16" && is_intel();
#else
    return false;
#endif
}

const Choice& best() {
    const char* forced = std::getenv("RIYAZ_ISA");
    if (forced != nullptr && *forced != '\0') return named(forced);
    const Choice* found = kChoices;
    for (const Choice& choice : kChoices) {
        if (choice.runs() && !is_slow(choice)) found = &choice;
    }
    return *found;
}

const Choice& chosen() {
    static const Choice& choice = best();  // if it throws, the next call tries again
    return choice;
}

}  // namespace

const Kernels& kernels() {
    static const Kernels& table = chosen().table();
    return table;
}

const Kernels& kernels_of(const std::string& isa) { return named(isa).table(); }

const char* isa() { return chosen().name; }

std::vector<std::string> isas() {
    std::vector<std::string> found;
    for (const Choice& choice : kChoices) {
        if (choice.runs()) found.emplace_back(choice.name);
    }
    return found;
}

}  // namespace riyaz
