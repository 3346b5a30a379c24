// The same questions to a law of ours and to the kernel's own functions, and what came of them.
//
// A case is a host with two units of one driver, a device behind each, and a third device that another driver owns.
// Each of the first two allocates with every flag set; each of the three attaches to what was allocated. The answers
// must relate as follows, and in no other way:
//
//   HWPT_ALLOC   Linux's errno is that of the first allocation rule, in the catalog's order, that we find broken, and
//                0 when none is; then every attribute is equal
//   attach       the same with attach rules; a strict rule stands for a check that Linux lacks: it is not counted
//                there, so that "Linux accepts, we refuse" happens by strict rules only
//   capable      the three capabilities that iommufd asks for are equal
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/law/law.h"
#include "tests/kernel/law/answers.h"

namespace ioplan::judged {

// How often a rule had something to say and was content, and how often it alone refused.
struct Tally {
  std::uint64_t accepted = 0;
  std::uint64_t refused_alone = 0;

  Tally& operator+=(const Tally& other) {
    accepted += other.accepted;
    refused_alone += other.refused_alone;
    return *this;
  }
};

// A law and the rules to ask: ours, or one that is wrong on purpose (mutants.h).
struct LawUnderTest {
  std::shared_ptr<const Law> law;
  std::vector<std::shared_ptr<const Rule>> rules;
};

struct Outcome {
  std::map<std::string_view, Tally> rules;
  std::uint64_t hosts = 0, allocations = 0, attachments = 0;
  std::uint64_t differences = 0;
  std::vector<std::string> first_differences;  // a few, as sentences
};

// What a driver's hardware looks like to us: the units and kernel of the host that `kernel` describes, given what only
// the booted driver could tell.
using OurHost = std::function<Host(const judge_host& kernel, const std::array<judge_device, JUDGE_UNITS>& booted)>;

class Comparison {
 public:
  // `kernel` outlives this.
  Comparison(const judge& kernel, LawUnderTest law, OurHost our_host);

  // Does nothing when the driver does not start with these units.
  void compare(const judge_host& host);
  const Outcome& outcome() const { return outcome_; }

 private:
  struct Verdict {
    std::vector<const Rule*> broken;
    int linux_errno = 0;  // predicted
  };

  void compare_capabilities(unsigned unit, const judge_device& theirs);
  void compare_allocation(unsigned unit, std::uint8_t flags);
  void compare_attributes(const HwptQuantities& ours, const judge_hwpt& theirs);
  void compare_attachment(const HwptQuantities& ours, unsigned unit);
  Verdict judge_by(Phase phase, const HwptQuantities& hwpt, const DeviceQuantities& device);
  void expect(std::string_view what, std::uint64_t ours, std::uint64_t theirs);
  std::string situation() const;

  const judge& kernel_;
  LawUnderTest law_;
  std::array<std::vector<const Rule*>, kPhaseNames.size()> rules_;
  OurHost our_host_;
  std::vector<DeviceQuantities> devices_;
  judge_host host_{};
  unsigned allocator_ = 0, target_ = 0;
  std::uint8_t flags_ = 0;
  Outcome outcome_;
};

}  // namespace ioplan::judged
