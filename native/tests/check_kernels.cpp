// Runs every kernel of every instruction set that this CPU has beside that of plain loops, on seeded random numbers,
// or of those that the arguments name, and prints a line for each kernel. Exits with 1 where one differs by more than
// is allowed, or where a set that an argument names is missing:
//
//     check_kernels [--some] [SET ...]
//
// With `--some` the slowest checks run a sample of their cases (checks.h).
#include <cstdio>
#include <exception>

#include "simd/dispatch.h"
#include "tests/checks.h"

namespace riyaz::checks {

bool sampled = false;

namespace {

// The line of one kernel; returns whether all sets are right.
bool compare(const Check& check, const std::vector<std::string>& sets, const Kernels& fused) {
    bool right = true;
    std::string line;
    for (const std::string& name : sets) {
        const Kernels& k = kernels_of(name);
        if (check.only != ManyTokens::none && check.only != k.many_tokens_by) continue;
        const double error = check.error({k, kernels_of("scalar"), fused});
        char text[64];
        snprintf(text, sizeof text, "  %s %.3g%s", name.c_str(), error, error <= 1 ? "" : " WRONG");
        line += text;
        right = right && error <= 1;
    }
    if (!line.empty()) printf("%-22s%s\n", check.name, line.c_str());
    return right;
}

int run(const std::vector<std::string>& wanted) {
    const std::vector<std::string> sets = isas();
    for (const std::string& name : wanted) kernels_of(name);  // throws where it is missing
    printf("this CPU runs");
    for (const std::string& name : sets) printf(" %s", name.c_str());
    printf("\nlargest error of each kernel; 0: bit for bit that of scalar, 1: as much as is allowed\n");
    const Kernels& fused = kernels_of(sets[sets.size() > 1 ? 1 : 0]);
    bool right = true;
    for (const auto* checks : {&products, &ternary, &functions, &attentions, &training, &training_functions,
                               &training_codes, &training_dense})
        for (const Check& check : *checks) right = compare(check, wanted.empty() ? sets : wanted, fused) && right;
    return right ? 0 : 1;
}

}  // namespace
}  // namespace riyaz::checks

int main(int count, char** arguments) {
    try {
        riyaz::checks::sampled = count > 1 && std::string(arguments[1]) == "--some";
        return riyaz::checks::run({arguments + (riyaz::checks::sampled ? 2 : 1), arguments + count});
    } catch (const std::exception& e) {
        fprintf(stderr, "error: %s\n", e.what());
        return 1;
    }
}
