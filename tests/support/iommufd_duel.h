// The simulator and the slow model side by side: every call is made on both, and they have to agree.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/sim/iommufd.h"
#include "backends/sim/machine.h"
#include "tests/support/iommufd_model.h"
#include "tests/support/iommufd_trace.h"

namespace ioplan::traces {

// Answers by call and errno, and refusals by the simulator's words.
struct Tally {
  std::map<std::pair<Verb, int>, std::uint64_t> answers;
  std::map<std::pair<int, std::string>, std::uint64_t> reasons;
  std::uint64_t calls = 0;
  std::uint64_t injected = 0;      // calls that ran out of a resource on purpose, and left no trace
  std::uint64_t dirty_pages = 0;   // bits that both reported
  std::uint64_t translations = 0;  // pages of HWPTs that were compared
  std::uint64_t blocked = 0;       // DMA that faulted although iommufd has an attachment: hazard H1
};

enum class Depth : std::uint8_t { samples, every_page };

class Duel {
 public:
  explicit Duel(const Sketch& sketch, Tally* tally = nullptr);
  ~Duel();

  // What differs, or nothing. `fail_nth`: first let the n-th resource of the call be missing (0: do not).
  std::string perform(const Call& call, std::uint64_t fail_nth = 0);

  // Everything that can be observed.
  std::string compare(Depth depth);

  // Closes all contexts and looks for what they left behind.
  std::string finish();

  const slow::Model& model() const { return *model_; }
  const std::vector<slow::Ram>& ram() const { return ram_; }
  int made_by(unsigned context, sim::ObjectId id) const;  // the call that returned a live object
  int errno_of_last() const { return last_error_; }

  static constexpr unsigned kContexts = 2;
  // Its memories: 64 KiB of single pages, 4 MiB of 2 MiB pages, 32 KiB read-only, 256 KiB of 64 KiB runs.
  static constexpr int kMemories = 4;
  static constexpr int kReadOnlyMemory = 2;

 private:
  struct Answered {
    int error = 0;
    std::uint64_t value = 0;
    std::string reason;
    std::string detail;  // ranges, bitmap words: compared as text
  };
  sim::ObjectId resolve(const Id& id) const;
  std::uint64_t address(const Call& call) const;
  int fd(const Call& call) const;
  Answered ask_simulator(const Call& call);
  Answered ask_model(const Call& call);
  std::string dma(const Call& call, const Answered& expected);
  Answered ask_simulator_twice(const Call& call, std::uint64_t nth, std::string& fault);
  std::string compare_context(unsigned context, Depth depth);
  std::string compare_hwpt(unsigned context, sim::ObjectId id, Depth depth);
  std::string compare_area(const sim::PageTable& table, const slow::Ioas& ioas, const slow::Area& area, Depth depth);

  Host host_;
  std::unique_ptr<sim::Machine> machine_;
  std::unique_ptr<slow::Model> model_;
  std::vector<slow::Ram> ram_;
  std::vector<std::unique_ptr<sim::Context>> contexts_;
  std::string pristine_;
  std::vector<sim::ObjectId> results_;
  std::map<std::pair<unsigned, sim::ObjectId>, int> made_by_;
  Tally* tally_;
  int last_error_ = 0;
  std::uint8_t tag_ = 0;
};

// Replays from nothing. The first difference, with the number of the call, or nothing.
struct Difference {
  std::size_t call = 0;
  std::string text;
};
std::optional<Difference> replay(const Trace& trace);

// The shortest trace that still differs, found by leaving out chunks and then single calls.
// Requires: replay(trace) differs.
Trace shrink(Trace trace);

}  // namespace ioplan::traces
