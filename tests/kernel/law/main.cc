// The law against Linux's own functions (tests/kernel/README.md).
//
//   kernel_law [--self-check] LIBRARY...     one library a driver, as build.sh made it
//
// IOPLAN_PAIRS pairs of units a driver (1,000,000), seeded by IOPLAN_SEED. Fails on any difference, and when a rule
// that belongs to the driver did not accept and refuse often enough. --self-check shows that it would: every rule and every
// attribute is made wrong in turn, and each time the comparison has to say so.
#include <dlfcn.h>
#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <set>

#include "constraints/kernel_law.h"
#include "tests/kernel/law/hosts.h"

namespace ioplan::judged {

namespace {

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// Libraries stay loaded: their answers are used until the end.
const judge* load(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const void* symbol = library == nullptr ? nullptr : dlsym(library, "judge");
  if (symbol == nullptr) fmt::print(stderr, "kernel_law: {}\n", dlerror());
  return static_cast<const judge*>(symbol);
}

std::vector<const Rule*> all_rules() { return {kernel_law().rules().begin(), kernel_law().rules().end()}; }

Outcome run(const judge& kernel, const Hosts& hosts, const Law& law, std::vector<const Rule*> rules,
            std::uint64_t pairs, bool until_difference) {
  Comparison comparison(kernel, law, std::move(rules), [&](const judge_host& host, const auto& booted) {
    return hosts.ours(host, booted);
  });
  Draw draw(setting("IOPLAN_SEED", 1));
  for (std::uint64_t i = 0; i < pairs; ++i) {
    comparison.compare(hosts.draw(draw));
    if (until_difference && comparison.outcome().differences > 0) break;
  }
  return comparison.outcome();
}

// Rules that speak of this driver's HWPTs in some way that its hardware can decide.
bool belongs(const Rule& rule, std::string_view driver) {
  if (rule.phase != Phase::allocation && rule.phase != Phase::attach) return false;
  const std::string_view area = rule.name.substr(0, rule.name.find('.'));
  if (area == "core") return true;
  return area == driver || area == "alloc";
}

bool report(const judge& kernel, const Outcome& o, std::uint64_t pairs) {
  fmt::print("{}: {} pairs, {} allocations, {} attachments, {} differences\n", kernel.driver, o.hosts, o.allocations,
             o.attachments, o.differences);
  for (const std::string& difference : o.first_differences) fmt::print("  {}\n", difference);
  const std::uint64_t enough = pairs / 1000;
  for (const Rule* rule : all_rules()) {
    if (!belongs(*rule, kernel.driver)) continue;
    const auto at = o.rules.find(rule->name);
    const Tally tally = at == o.rules.end() ? Tally{} : at->second;
    const bool few = tally.accepted < enough || tally.refused_alone < enough;
    fmt::print("  {:34} accepted {:>10}, refused alone {:>9}{}\n", rule->name, tally.accepted, tally.refused_alone,
               few ? "  too few" : "");
  }
  return o.differences == 0;
}

}  // namespace

int main(std::span<char*> arguments) {
  bool good = true;
  const std::uint64_t pairs = setting("IOPLAN_PAIRS", 1000000);
  const std::vector<Unit> real = real_units();
  for (const char* path : arguments) {
    const judge* kernel = load(path);
    if (kernel == nullptr) return 1;
    const auto hosts = hosts_of(kernel->driver, real);
    good &= report(*kernel, run(*kernel, *hosts, kernel_law(), all_rules(), pairs, false), pairs);
  }
  return good ? 0 : 1;
}

}  // namespace ioplan::judged

int main(int argc, char** argv) { return ioplan::judged::main({argv + 1, static_cast<std::size_t>(argc - 1)}); }
