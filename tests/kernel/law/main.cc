// The law against Linux's own functions (tests/kernel/README.md).
//
//   kernel_law LIBRARY...     one library a driver, as build.sh made it
//
// IOPLAN_PAIRS pairs of units a driver (1,000,000), drawn from IOPLAN_SEED, one thread a driver. Fails on any
// difference, and when a rule did not accept, or did not refuse alone, at least once in a thousand pairs. Before that
// it shows that it can fail: every rule is left out and reversed in turn, every attribute is made wrong, and each time
// a difference must show.
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <future>

#include "constraints/catalog.h"
#include "constraints/kernel_law.h"
#include "tests/kernel/law/hosts.h"
#include "tests/kernel/law/mutants.h"

namespace ioplan::judged {

namespace {

// How many pairs a wrong law may stay unnoticed: a few with every driver, then many.
constexpr std::uint64_t kFewPairs = 200, kManyPairs = 20000;

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

struct Subject {
  const judge* kernel;
  std::unique_ptr<Hosts> hosts;
};

// Libraries stay loaded: their answers are used until the end.
const judge* load(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const void* symbol = library == nullptr ? nullptr : dlsym(library, "judge");
  if (symbol == nullptr) fmt::print(stderr, "kernel_law: {}\n", dlerror());
  return static_cast<const judge*>(symbol);
}

Outcome run(const Subject& subject, const LawUnderTest& law, std::uint64_t pairs, bool stop_at_difference) {
  Comparison comparison(*subject.kernel, law,
                        [&](const judge_host& host, const auto& booted) { return subject.hosts->ours(host, booted); });
  Draw draw(setting("IOPLAN_SEED", 1));
  while (comparison.outcome().hosts < pairs) {
    comparison.compare(subject.hosts->draw(draw));
    if (stop_at_difference && comparison.outcome().differences > 0) break;
  }
  return comparison.outcome();
}

void print(const Subject& subject, const Outcome& o) {
  fmt::print("law: {}: {} pairs, {} allocations, {} attachments, {} differences\n", subject.kernel->driver, o.hosts,
             o.allocations, o.attachments, o.differences);
  for (const std::string& difference : o.first_differences) fmt::print("  {}\n", difference);
}

// The drivers' own rules, and those that all drivers share.
bool is_asked(const Rule& rule, std::span<const Subject> subjects) {
  if (rule.phase != Phase::allocation && rule.phase != Phase::attach) return false;
  const std::string_view area = rule.name.substr(0, rule.name.find('.'));
  if (area == "alloc" || area == "core") return true;
  return std::ranges::any_of(subjects, [&](const Subject& s) { return area == s.kernel->driver; });
}

bool every_rule_worked(std::span<const Subject> subjects, const std::map<std::string_view, Tally>& tallies,
                       std::uint64_t enough) {
  bool good = true;
  for (const Rule* rule : catalog()) {
    if (!is_asked(*rule, subjects)) continue;
    const auto at = tallies.find(rule->name);
    const Tally tally = at == tallies.end() ? Tally{} : at->second;
    const bool worked = tally.accepted >= enough && tally.refused_alone >= enough;
    fmt::print("  {:33} accepted {:>11}, refused alone {:>9}{}{}\n", rule->name, tally.accepted, tally.refused_alone,
               rule->strict ? "  (Linux accepts)" : "", worked ? "" : "  too few");
    good &= worked;
  }
  return good;
}

bool compare_all(std::span<const Subject> subjects) {
  const std::uint64_t pairs = setting("IOPLAN_PAIRS", 1000000);
  const LawUnderTest law = the_law();
  std::vector<std::future<Outcome>> running;
  for (const Subject& s : subjects) {
    running.push_back(std::async(std::launch::async, [&] { return run(s, law, pairs, false); }));
  }
  bool good = true;
  std::map<std::string_view, Tally> total;
  for (std::size_t i = 0; i < subjects.size(); ++i) {
    const Outcome outcome = running[i].get();
    print(subjects[i], outcome);
    good &= outcome.differences == 0;
    for (const auto& [rule, tally] : outcome.rules) total[rule] += tally;
  }
  return every_rule_worked(subjects, total, std::max<std::uint64_t>(1, pairs / 1000)) && good;
}

bool is_noticed(std::span<const Subject> subjects, const LawUnderTest& wrong, std::uint64_t pairs) {
  return std::ranges::any_of(subjects, [&](const Subject& s) { return run(s, wrong, pairs, true).differences > 0; });
}

bool self_check(std::span<const Subject> subjects) {
  std::size_t noticed = 0;
  const std::vector<Mutant> mutants = mutants_of(the_law(), [&](const Rule& r) { return is_asked(r, subjects); });
  for (const Mutant& mutant : mutants) {
    if (is_noticed(subjects, mutant.law, kFewPairs) || is_noticed(subjects, mutant.law, kManyPairs)) {
      ++noticed;
    } else {
      fmt::print("  not noticed: {}\n", mutant.name);
    }
  }
  fmt::print("law: {} of {} wrong laws noticed\n", noticed, mutants.size());
  return noticed == mutants.size();
}

}  // namespace

int main(std::span<char*> arguments) {
  const std::vector<Unit> real = real_units();
  fmt::print("law: {} units of real machines\n", real.size());
  std::vector<Subject> subjects;
  for (const char* path : arguments) {
    const judge* kernel = load(path);
    if (kernel == nullptr) return 1;
    subjects.push_back({kernel, hosts_of(kernel->driver, real)});
  }
  return self_check(subjects) && compare_all(subjects) ? 0 : 1;
}

}  // namespace ioplan::judged

int main(int argc, char** argv) { return ioplan::judged::main({argv + 1, static_cast<std::size_t>(argc - 1)}); }
