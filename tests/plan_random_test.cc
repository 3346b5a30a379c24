// make_plan against the oracle: thousands of random questions (tests/support/generator.h), each answered a second time
// by trying every partition and every template (tests/support/oracle.h), which shares no rule with the planner.
// Compared is everything that a Plan document fixes: verdict, objective values, partition, allocators, flags and
// attributes of every HWPT, address spaces, KVM's verdict, resources, adopted preferences; bounds and witnesses are
// checked against the oracle's accept sets. The mix of questions is asserted, so that these comparisons keep meaning
// something.
//
// IOPLAN_SCALE multiplies the number of questions (10 is the soak run), IOPLAN_SEED asks one seed only, IOPLAN_FIRST
// starts at another seed, IOPLAN_FAILURES allows more mismatches before giving up, IOPLAN_SAVE names a folder for the
// documents of mismatches.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

#include "constraints/kernel_law.h"
#include "engine/base/text.h"
#include "engine/document/load.h"
#include "engine/planner/planner.h"
#include "tests/support/generator.h"
#include "tests/support/oracle.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

std::string range_text(const Range& r) { return format_hex(r.start) + "-" + format_hex(r.last); }

std::string flags_text(std::uint8_t flags) {
  std::string text;
  for (unsigned f = 0; f < 3; ++f) {
    if ((flags >> f & 1) != 0) text += "+" + std::string(kHwptFlagNames[f]);
  }
  return text;
}

// A plan as lines, so that two of them compare line by line and a mismatch reads well.
using Lines = std::map<std::string, std::string>;

template <class AnyHwpt>
std::string attributes_text(const AnyHwpt& h) {
  return fmt::format("{} stage {} {} levels {} bits {} aperture {} pages {} {}{} bytes {}", name_of(h.driver), h.stage,
                     kPageTableFormatNames[static_cast<std::size_t>(h.format)], h.levels, h.address_bits,
                     range_text(h.aperture), format_hex(h.page_sizes), h.enforce_cache_coherency ? "cc" : "non-cc",
                     h.automatic ? " automatic" : "", h.page_table_bytes);
}

template <class AnyHwpt>
void add_hwpt(Lines& lines, std::size_t number, const AnyHwpt& h) {
  const std::string name = fmt::format("hwpt {}", number);
  lines[name + " devices"] = fmt::format("{}", fmt::join(h.devices, " "));
  lines[name + " allocator"] = h.allocator;
  lines[name + " flags"] = flags_text(h.flags) + " " + std::string(kHwptKindNames[static_cast<std::size_t>(h.kind)]);
  lines[name + " attributes"] = attributes_text(h);
}

void add_objectives(Lines& lines, const ObjectiveValues& values) {
  for (std::size_t o = 0; o < kObjectiveNames.size(); ++o) {
    lines["objective " + std::string(kObjectiveNames[o])] = std::to_string(values.by_objective[o]);
  }
}

template <class AnyIoas>
void add_ioas(Lines& lines, const AnyIoas& ioas) {
  std::string ranges;
  for (const Range& r : ioas.ranges) ranges += range_text(r) + " ";
  lines["ioas " + ioas.vm + " ranges"] = ranges;
  lines["ioas " + ioas.vm + " alignment"] = std::to_string(ioas.alignment);
}

std::string kvm_text(bool noncoherent, std::vector<std::string> because) {
  std::ranges::sort(because, natural_less);
  return fmt::format("{} {}", noncoherent, fmt::join(because, " "));
}

Lines lines_of(const oracle::Answer& a) {
  Lines lines;
  lines["verdict"] = a.feasible ? "feasible" : "infeasible";
  if (!a.feasible) return lines;
  add_objectives(lines, a.objectives);
  for (std::size_t i = 0; i < a.hwpts.size(); ++i) add_hwpt(lines, i, a.hwpts[i]);
  for (const oracle::Ioas& i : a.ioas) add_ioas(lines, i);
  lines["kvm"] = kvm_text(a.noncoherent_dma, a.because);
  lines["resources"] =
      fmt::format("pinned {} tables {} memlock {}", a.pinned_bytes, a.page_table_bytes, a.memlock_bytes);
  lines["preferences"] = fmt::format("{}", fmt::join(a.preferences, " "));
  return lines;
}

Lines lines_of(const Plan& p) {
  Lines lines;
  lines["verdict"] = kVerdictNames[static_cast<std::size_t>(p.verdict)];
  if (p.verdict != Verdict::feasible) return lines;
  add_objectives(lines, p.objectives);
  auto hwpts = p.hwpts;
  std::ranges::sort(hwpts, natural_less, [](const PlannedHwpt& h) { return h.devices.front(); });
  for (std::size_t i = 0; i < hwpts.size(); ++i) add_hwpt(lines, i, hwpts[i]);
  for (const PlannedIoas& i : p.ioas) add_ioas(lines, i);
  lines["kvm"] = kvm_text(p.kvm.noncoherent_dma, p.kvm.because);
  lines["resources"] = fmt::format("pinned {} tables {} memlock {}", p.resources.pinned_bytes,
                                   p.resources.page_table_bytes, p.resources.memlock_bytes);
  auto preferences = p.preferences;
  lines["preferences"] = fmt::format("{}", fmt::join(preferences, " "));
  return lines;
}

// What differs, one line each; empty when nothing does.
std::string differences(const Lines& planner, const Lines& truth) {
  std::string text;
  const auto at = [](const Lines& lines, const std::string& key) {
    const auto it = lines.find(key);
    return it == lines.end() ? std::string("(nothing)") : it->second;
  };
  Lines keys = planner;
  keys.insert(truth.begin(), truth.end());
  for (const auto& [key, unused] : keys) {
    if (at(planner, key) == at(truth, key)) continue;
    text += fmt::format("  {}\n    planner: {}\n    oracle:  {}\n", key, at(planner, key), at(truth, key));
  }
  return text;
}

// The bound is one: a witness of its size whose members never share, and never more than the fewest there are.
std::string bound_faults(const Request& request, const Plan& plan, const oracle::Answer& truth) {
  std::string text;
  const Optimality& o = plan.optimality;
  if (o.hwpts != plan.hwpts.size()) text += fmt::format("  optimality.hwpts {} of {}\n", o.hwpts, plan.hwpts.size());
  if (o.lower_bound > truth.fewest_hwpts) {
    text += fmt::format("  lower_bound {} above the fewest {}\n", o.lower_bound, truth.fewest_hwpts);
  }
  if (truth.hwpts.size() == truth.fewest_hwpts && (o.lower_bound != o.hwpts || o.proof == ProofKind::none)) {
    text += fmt::format("  lower_bound {} of {} is not proved\n", o.lower_bound, o.hwpts);
  }
  if (o.proof == ProofKind::witness && o.witness.size() != o.lower_bound) {
    text += fmt::format("  a witness of {} for {}\n", o.witness.size(), o.lower_bound);
  }
  for (std::size_t i = 0; o.proof == ProofKind::witness && i < o.witness.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (!oracle::exclusive(request, o.witness[i], o.witness[j])) {
        text += fmt::format("  witnesses {} and {} may share\n", o.witness[j], o.witness[i]);
      }
    }
  }
  return text;
}

struct Mix {
  std::size_t questions = 0, feasible = 0, infeasible = 0, undecided = 0, several = 0, gap = 0, preferences = 0,
              vms = 0;
};

void count(Mix& mix, const Request& request, const oracle::Answer& truth, bool undecided) {
  ++mix.questions;
  if (undecided) ++mix.undecided;
  if (!undecided && !truth.feasible) ++mix.infeasible;
  if (undecided || !truth.feasible) return;
  ++mix.feasible;
  mix.several += truth.hwpts.size() > request.vms.size();
  mix.gap += truth.clique < truth.hwpts.size() && truth.clique < truth.fewest_hwpts;
  mix.preferences += !truth.preferences.empty();
  mix.vms += request.vms.size() > 1;
}

// Facts that decide nothing may take any of their values.
Request completed(Request request) {
  for (const oracle::AbsentFact& absent : oracle::absent_facts(request)) {
    oracle::set_fact(request.host, absent, absent.candidates.front());
  }
  return request;
}

std::string compare(std::uint64_t seed, Mix& mix) {
  const Request request = generator::random_request(seed);
  const bool undecided = oracle::undecided(request);
  const Request complete = completed(request);
  const oracle::Answer truth = oracle::judge(complete);
  count(mix, request, truth, undecided);
  const Plan plan = make_plan(request, kernel_law());
  Lines expected = lines_of(truth);
  if (undecided) expected = {{"verdict", "undecided"}};
  std::string text = differences(lines_of(plan), expected);
  if (text.empty() && plan.verdict == Verdict::feasible) text = bound_faults(complete, plan, truth);
  if (text.empty()) return text;
  for (const std::string& why : truth.why) text += "  oracle says no: " + why + "\n";
  for (const Conflict& c : plan.conflict) text += "  planner's conflict: " + c.rule + ": " + c.because + "\n";
  for (const UnknownFact& u : plan.unknown) {
    text += fmt::format("  planner's unknown: {} {} -> {}, {} -> {}\n", u.fact, u.first_value, u.first_answer,
                        u.second_value, u.second_answer);
  }
  for (const auto& absent : oracle::absent_facts(request)) text += "  absent: " + absent.path + "\n";
  return text;
}

void save(std::uint64_t seed, const std::string& text) {
  const char* folder = std::getenv("IOPLAN_SAVE");
  if (folder == nullptr) return;
  std::ofstream(fmt::format("{}/{}.yaml", folder, seed)) << generator::to_documents(generator::random_request(seed));
  std::ofstream(fmt::format("{}/{}.txt", folder, seed)) << text;
}

void report(std::uint64_t seed, const std::string& text, bool with_documents) {
  save(seed, text);
  ADD_FAILURE() << "seed " << seed << "\n"
                << text << (with_documents ? generator::to_documents(generator::random_request(seed)) : std::string());
}

void expect_mix(const Mix& mix) {
  std::printf(
      "mix: %zu questions, %zu infeasible, %zu undecided, %zu need several HWPTs, %zu with a clique below the "
      "optimum, %zu with preferences, %zu of several VMs\n",
      mix.questions, mix.infeasible, mix.undecided, mix.several, mix.gap, mix.preferences, mix.vms);
  EXPECT_GE(mix.infeasible * 100, mix.questions * 15);
  EXPECT_GE(mix.several * 100, mix.questions * 25);
  EXPECT_GE(mix.undecided * 100, mix.questions * 3);
  EXPECT_GE(mix.gap * 40, mix.questions);  // 500 of 20,000
}

TEST(Plan, AgreesWithBruteForceOnRandomQuestions) {
  Mix mix;
  if (std::getenv("IOPLAN_SEED") != nullptr) {
    const auto seed = static_cast<std::uint64_t>(number_from("IOPLAN_SEED", 0));
    const std::string text = compare(seed, mix);
    if (!text.empty()) report(seed, text, true);
    return;
  }
  const auto first = static_cast<std::uint64_t>(number_from("IOPLAN_FIRST", 0));
  const auto questions = static_cast<std::uint64_t>(20000 * number_from("IOPLAN_SCALE", 1));
  const auto most_failures = static_cast<std::size_t>(number_from("IOPLAN_FAILURES", 5));
  std::size_t failures = 0;
  for (std::uint64_t seed = first; seed < first + questions && failures < most_failures; ++seed) {
    const std::string text = compare(seed, mix);
    if (text.empty()) continue;
    ++failures;
    report(seed, text, most_failures <= 5);
  }
  if (failures < most_failures && questions >= 1000) expect_mix(mix);
}

// A saved failure is the failure: documents read back as the request they were written from.
TEST(Generator, DocumentsReadBack) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const Request request = generator::random_request(seed);
    const std::string text = generator::to_documents(request);
    const auto loaded = load_text("saved", text);
    ASSERT_TRUE(loaded) << "seed " << seed << ": " << to_text(loaded.error());
    EXPECT_EQ(fingerprint(loaded->request.host), fingerprint(request.host)) << "seed " << seed;
    EXPECT_EQ(generator::to_documents(loaded->request), text) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ioplan
