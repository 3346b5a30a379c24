// The IOAS on top: one IOMMU_IOAS_MAP of memory with a given backing, filling 1, 2 and 4 HWPTs, and the unmap.
//
// `map` and `unmap` are nanoseconds per page of the backing for the whole call: allowed and reserved ranges, areas,
// pinning, every table. `tables` is the part that the page tables alone would take: the same extents into as many
// tables.

#include <memory>
#include <string>
#include <vector>

#include "backends/sim/iommufd.h"
#include "backends/sim/machine.h"
#include "bench/map_contestants.h"
#include "bench/map_report.h"
#include "bench/map_rows.h"
#include "bench/map_workload.h"
#include "bench/synthetic_host.h"
#include "constraints/kernel_law.h"

namespace ioplan::bench {
namespace {

struct Backing {
  const char* name;
  std::uint64_t page_size;
  std::uint64_t size;  // mapped
};
constexpr Backing kBackings[] = {{"1GiB-of-4K", 1 << 12, std::uint64_t{1} << 30},
                                 {"256GiB-of-2M", 1 << 21, std::uint64_t{1} << 38},
                                 {"1TiB-of-1G", 1 << 30, std::uint64_t{1} << 40}};

constexpr std::uint64_t kIova = std::uint64_t{1} << 42;
constexpr std::uint32_t kFlags = sim::kMapFixedIova | sim::kMapReadable | sim::kMapWriteable;

// A machine with one VT-d unit, an IOAS with HWPTs, and memory to map.
class Scene {
 public:
  Scene(const Backing& backing, std::size_t hwpts) : backing_(backing) {
    auto machine = sim::Machine::create(synthetic_request({1, 1, 1}).host, kernel_law());
    if (!machine) return;
    machine_ = std::move(*machine);
    context_ = machine_->open();
    memory_ = machine_->memory().allocate(backing.size, backing.page_size);
    machine_->memory().extents(memory_, 0, memory_.size, extents_);
    const auto device = context_->bind(machine_->host().devices[0].id);
    const auto ioas = context_->ioas_alloc();
    if (!device || !ioas) return;
    ioas_ = *ioas;
    for (std::size_t i = 0; i < hwpts; ++i) {
      const auto hwpt = context_->hwpt_alloc(*device, ioas_, 0);
      if (!hwpt) return;
      hwpts_.push_back(*hwpt);
      tables_.push_back(std::make_unique<Table>(context_->table(*hwpt)->shape()));
    }
    ready_ = true;
  }

  bool ready() const { return ready_; }
  std::size_t pages() const { return static_cast<std::size_t>(backing_.size / backing_.page_size); }

  bool map() { return context_->ioas_map(ioas_, kFlags, memory_.user_va, memory_.size, kIova).has_value(); }
  bool unmap() { return context_->ioas_unmap(ioas_, kIova, memory_.size).value_or(0) == memory_.size; }
  bool map_tables() {
    int refused = 0;
    for (const auto& table : tables_) refused |= table->calls().map(kIova, extents_);
    return refused == 0;
  }
  void unmap_tables() {
    for (const auto& table : tables_) table->calls().unmap(kIova, memory_.size);
  }

  // Every extent through every HWPT.
  bool every_page_right() const {
    for (sim::ObjectId hwpt : hwpts_) {
      std::uint64_t iova = kIova;
      for (const sim::Extent& e : extents_) {
        if (context_->table(hwpt)->iova_to_phys(iova) != e.pa) return false;
        iova += e.size;
      }
    }
    return true;
  }

 private:
  Backing backing_;
  std::unique_ptr<sim::Machine> machine_;
  std::unique_ptr<sim::Context> context_;
  sim::Memory memory_;
  std::vector<sim::Extent> extents_;
  sim::ObjectId ioas_ = 0;
  std::vector<sim::ObjectId> hwpts_;
  std::vector<std::unique_ptr<Table>> tables_;
  bool ready_ = false;
};

void fan_out(benchmark::State& state, const Backing& backing, std::size_t hwpts) {
  Scene scene(backing, hwpts);
  if (!scene.ready()) return state.SkipWithError("cannot set the scene");
  if (!scene.map() || !scene.every_page_right() || !scene.unmap()) return state.SkipWithError("wrong pages");
  Columns columns;
  const auto time = [&](const char* column, auto work) {
    Samples s;
    const bool right = s.time(work);
    columns[column].add(per_page(s.last(), scene.pages()));
    return right;
  };
  for (auto _ : state) {
    const bool right = time("map", [&] { return scene.map(); }) && time("unmap", [&] { return scene.unmap(); }) &&
                       time("tables", [&] { return scene.map_tables(); });
    scene.unmap_tables();
    if (!right) return state.SkipWithError("wrong result");
    state.SetIterationTime(columns["map"].last() * static_cast<double>(scene.pages()) / kNano);
  }
  report(state, columns);
}

}  // namespace

void register_fan_out_rows() {
  for (const Backing& backing : kBackings) {
    for (std::size_t hwpts : {1U, 2U, 4U}) {
      const std::string row = std::string("ioas/") + backing.name + "/hwpts:" + std::to_string(hwpts);
      benchmark::RegisterBenchmark(row.c_str(),
                                   [backing, hwpts](benchmark::State& state) { fan_out(state, backing, hwpts); })
          ->Iterations(kIterations)
          ->UseManualTime();
    }
  }
}

}  // namespace ioplan::bench
