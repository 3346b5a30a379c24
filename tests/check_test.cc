// The judge, doubted: mutants of valid plans, which an independent replay calls right or wrong one by one.
//
// The judge must object exactly to those that the replay calls wrong, and every obligation must reject at least one.
// The plans are those of hand-made hosts of every driver (below) and of random requests. Answers that rest on absent
// facts are doubted apart, because the replay needs complete requests.

#include "engine/check/check.h"

#include <gtest/gtest.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>

#include "constraints/kernel_law.h"
#include "engine/check/gaps.h"
#include "engine/check/interval.h"
#include "engine/check/tables.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/planner/planner.h"
#include "tests/support/generator.h"
#include "tests/support/mutants.h"
#include "tests/support/replay.h"

namespace ioplan {
namespace {

using check::Intervals;

// ------------------------------------------------------------------------------------------------- parts of the judge

TEST(Interval, ListsAreCanonical) {
  const std::uint64_t top = ~std::uint64_t{0};
  EXPECT_EQ(check::merged({{5, 9}, {0, 4}, {20, 30}}), (Intervals{{0, 9}, {20, 30}}));
  EXPECT_EQ(check::merged({{0, top}, {0, 0}, {7, top}}), (Intervals{{0, top}}));
  EXPECT_EQ(check::merged({}), Intervals{});
}

TEST(Interval, HolesReachBothEnds) {
  const std::uint64_t top = ~std::uint64_t{0};
  EXPECT_EQ(check::without({check::kEverything}, {0, 9}), (Intervals{{10, top}}));
  EXPECT_EQ(check::without({check::kEverything}, {10, top}), (Intervals{{0, 9}}));
  EXPECT_EQ(check::without({check::kEverything}, {0, top}), Intervals{});
  EXPECT_EQ(check::without({{0, 9}, {20, 29}}, {5, 24}), (Intervals{{0, 4}, {25, 29}}));
}

TEST(Interval, CoverIsByOneRange) {
  EXPECT_TRUE(check::covers({{0, 9}, {20, 29}}, {20, 29}));
  EXPECT_FALSE(check::covers({{0, 9}, {20, 29}}, {5, 21}));
}

TEST(Interval, AgreesWithABitmap) {
  std::mt19937_64 random(1);
  const auto draw = [&](std::uint64_t below) { return random() % below; };
  for (int round = 0; round < 2000; ++round) {
    std::vector<Range> in, out;
    std::uint64_t bits = 0;
    for (int k = 0; k < 4; ++k) {
      const std::uint64_t start = draw(64);
      (k < 2 ? in : out).push_back({start, start + draw(64 - start)});
    }
    for (unsigned b = 0; b < 64; ++b) {
      const auto has = [&](const std::vector<Range>& list) {
        for (const Range& r : list) {
          if (r.start <= b && b <= r.last) return true;
        }
        return false;
      };
      bits |= static_cast<std::uint64_t>(has(in) && !has(out)) << b;
    }
    Intervals list = check::merged(in);
    for (const Range& r : out) list = check::without(list, r);
    std::uint64_t got = 0;
    for (const Range& r : list) {
      for (std::uint64_t b = r.start; b <= r.last; ++b) got |= std::uint64_t{1} << b;
    }
    ASSERT_EQ(got, bits);
  }
}

check::TableShape x86(unsigned levels, std::uint64_t pages) { return {PageTableFormat::x86_64, 1, levels, 48, pages}; }
std::vector<MemoryRange> ram(std::uint64_t start, std::uint64_t last) { return {{{start, last}, Access::read_write}}; }

constexpr std::uint64_t k4K = 1ULL << 12;
constexpr std::uint64_t k2M = 1ULL << 21;
constexpr std::uint64_t k1G = 1ULL << 30;

TEST(Tables, WorkedByHand) {
  const std::uint64_t all = k4K | k2M | k1G;
  EXPECT_EQ(check::table_bytes(x86(4, all), ram(0, k1G - 1), k1G), 2 * 4096);          // root, third level
  EXPECT_EQ(check::table_bytes(x86(4, all), ram(0, k1G - 1), k2M), 3 * 4096);          // and one of 2 MiB leaves
  EXPECT_EQ(check::table_bytes(x86(4, all), ram(0, k1G - 1), k4K), (3 + 512) * 4096);  // and 512 of 4 KiB leaves
  EXPECT_EQ(check::table_bytes(x86(4, all), ram(k4K, k1G - 1), k1G), 4 * 4096);        // 4 KiB leaves in one table only
  EXPECT_EQ(check::table_bytes(x86(5, all), ram(0, k1G - 1), k1G), 3 * 4096);
  EXPECT_EQ(check::table_bytes({PageTableFormat::virtio, 1, 0, 64, all}, ram(0, k1G - 1), k4K), 0);
}

TEST(Tables, FormatsDiffer) {
  const std::uint64_t amd = ~std::uint64_t{0xfff} & ~(1ULL << 39) & ((1ULL << 52) - 1);
  EXPECT_EQ(check::table_bytes({PageTableFormat::amdv1, 2, 3, 48, amd}, ram(0, k1G - 1), k1G), 4096);  // in the root
  EXPECT_EQ(check::table_bytes({PageTableFormat::amdv1, 2, 3, 48, amd}, ram(0, 1024 * k1G - 1), k1G), 4096 * 3);
  EXPECT_EQ(check::table_bytes({PageTableFormat::s390, 1, 3, 42, k4K}, ram(0, k1G - 1), k4K), 2 * 16384 + 1024 * 2048);
  EXPECT_EQ(check::table_bytes({PageTableFormat::arm_lpae, 2, 3, 40, k4K | k2M | k1G}, ram(k1G, 2 * k1G - 1), k1G),
            2 * 4096);  // two root tables, concatenated
  EXPECT_EQ(check::table_bytes({PageTableFormat::mock, 2, 3, 56, ((1ULL << 37) - 1) & ~2047ULL},
                               ram(1 << 24, (1 << 24) + 4095), k4K),
            3 * 4096);
}

// ------------------------------------------------------------------------------------------------- plans to doubt

constexpr const char* kThreeUnits = R"(
apiVersion: ioplan/v1
kind: Host
name: three
kernel: {arch: x86_64, release: 7.2.13, page_size: 4KiB, intel_iommu_sm: true, isolated_msi: true}
iommus:
  - {id: dmar0, driver: intel, cap: 0x19ed008c40780c66, ecap: 0x3ef9ea6f050df}
  - {id: dmar1, driver: intel, cap: 0x19ed008c40780c66, ecap: 0x29a00f0505e}
  - {id: dmar2, driver: intel, cap: 0x8d2078c106f0466, ecap: 0xf020df}
devices:
  - {id: "0000:01:00.0", iommu: dmar0, group: 1, class: 0x020000, vendor: 0x8086, device: 0x1572, pasid_bits: 20,
     reserved: [{range: [0xfee00000, 0xfeefffff], type: msi}, {range: [0x100, 0x1ff], type: direct-relaxable}]}
  - {id: "0000:01:00.1", iommu: dmar0, group: 1, class: 0x020000, pasid_bits: 20}
  - {id: "0000:01:00.2", iommu: dmar0, group: 1, class: 0x020000, pasid_bits: 20}
  - {id: "0000:02:00.0", iommu: dmar1, group: 2, class: 0x030000, pasid_bits: 20}
  - {id: "0000:03:00.0", iommu: dmar2, group: 3, class: 0x030000, pasid_bits: 20}
  - {id: "0000:04:00.0", iommu: dmar2, group: 4, class: 0x010802, pasid_bits: 0}
---
)";

struct Case {
  const char* name;
  std::string documents;
};

std::string three(const std::string& rest) { return kThreeUnits + rest; }

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"two hwpts, a shared group, a mediated device", three(R"(
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {size: 8GiB}
machine: {type: q35, cpu_vendor: intel}
devices: [{host: "0000:01:00.1"}, {host: "0000:01:00.2"}, {host: "0000:02:00.0", name: gpu}, {host: "0000:03:00.0"},
          {mdev: 83b8f4f2-509f-382f-3c1e-e6bfe0fa1001}]
)")},
      {"two vms", three(R"(
apiVersion: ioplan/v1
kind: VirtualMachine
name: a
memory: {size: 3GiB, backing: 2MiB}
machine: {type: q35, cpu_vendor: intel}
devices: [{host: "0000:01:00.0"}, {host: "0000:03:00.0"}]
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: b
memory: {ranges: [{gpa: [0x0, 0x3fffffff], access: rw}, {gpa: [0x40000000, 0x400fffff], access: ro}], backing: 1GiB}
devices: [{host: "0000:04:00.0"}]
)")},
      {"everything apart", three(R"(
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {size: 4GiB, backing: 1GiB}
machine: {type: q35, cpu_vendor: intel}
devices: [{host: "0000:01:00.1"}, {host: "0000:03:00.0"}, {host: "0000:04:00.0"}]
needs: {dirty_tracking: preferred, p2p: [["0000:03:00.0", "0000:04:00.0"]]}
---
apiVersion: ioplan/v1
kind: Policy
name: p
coherency: strict
rules: [{name: apart, separate: {a: {}, b: {}}}, {name: few, limit: {hwpts: 3}}]
)")},
      {"infeasible by a limit", three(R"(
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {size: 4GiB, backing: 1GiB}
machine: {type: q35, cpu_vendor: intel}
devices: [{host: "0000:01:00.1"}, {host: "0000:03:00.0"}, {host: "0000:04:00.0"}]
---
apiVersion: ioplan/v1
kind: Policy
name: p
rules: [{name: apart, separate: {a: {}, b: {}}}, {name: few, limit: {hwpts: 2}}]
)")},
      {"amd, dirty tracking required, relocated memory", R"(
apiVersion: ioplan/v1
kind: Host
name: epyc
kernel: {arch: x86_64, la57: false}
iommus:
  - {id: ivhd0, driver: amd, efr: 0x246577efa2254afa, efr2: 0x0}
  - {id: ivhd1, driver: amd, efr: 0x246577efa2254afa, efr2: 0x0}
devices:
  - {id: "0000:41:00.0", iommu: ivhd0, group: 1}
  - {id: "0000:81:00.0", iommu: ivhd1, group: 2}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: big
memory: {size: 1200GiB, backing: 1GiB}
machine: {type: q35, cpu_vendor: amd}
devices: [{host: "0000:41:00.0"}, {host: "0000:81:00.0"}]
needs: {dirty_tracking: required}
)"},
      {"smmuv3, nesting parents", R"(
apiVersion: ioplan/v1
kind: Host
name: arm
iommus:
  - {id: smmu0, driver: smmuv3, idr: [0x0d8ff1ff, 0x0e739d10, 0x0, 0x0, 0x0, 0x75], coherent: true}
  - {id: smmu1, driver: smmuv3, idr: [0x0d8ff1ff, 0x0e739d10, 0x0, 0x0, 0x0, 0x54], coherent: true, httu: 0}
devices:
  - {id: "0000:01:00.0", iommu: smmu0, group: 1, canwbs: true, dma_coherent: {value: true, source: firmware}}
  - {id: "0000:02:00.0", iommu: smmu0, group: 2, canwbs: false, dma_coherent: {value: true, source: firmware}}
  - {id: "0001:01:00.0", iommu: smmu1, group: 3, canwbs: false, dma_coherent: {value: true, source: firmware}}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {size: 16GiB, backing: 2MiB}
devices: [{host: "0000:01:00.0"}, {host: "0000:02:00.0"}, {host: "0001:01:00.0"}]
needs: {nest_parent: required}
)"},
      {"smmuv2, automatic", R"(
apiVersion: ioplan/v1
kind: Host
name: old-arm
iommus:
  - {id: smmu0, driver: smmuv2, page_mask: 0x40201000, stage1: true, stage2: true, input_bits: 48, ipa_bits: 48,
     coherent: true, context_banks: 4}
  - {id: smmu1, driver: smmuv2, page_mask: 0x40201000, stage1: true, stage2: true, input_bits: 48, ipa_bits: 48,
     coherent: true}
devices:
  - {id: "0000:01:00.0", iommu: smmu0, group: 1, dma_coherent: {value: true, source: firmware}}
  - {id: "0000:02:00.0", iommu: smmu0, group: 2, dma_coherent: {value: true, source: firmware}}
  - {id: "0000:03:00.0", iommu: smmu1, group: 3, dma_coherent: {value: true, source: assumed}}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {size: 2GiB}
devices: [{host: "0000:01:00.0"}, {host: "0000:02:00.0"}, {host: "0000:03:00.0"}]
)"},
      {"virtio with two domains", R"(
apiVersion: ioplan/v1
kind: Host
name: guest
kernel: {arch: x86_64}
iommus:
  - {id: viommu0, driver: virtio, page_mask: 0xfffffffffffff000, domain_range: [0, 1]}
devices:
  - {id: "0000:01:00.0", iommu: viommu0, group: 1, reserved: [{range: [0xfee00000, 0xfeefffff], type: msi}]}
  - {id: "0000:02:00.0", iommu: viommu0, group: 2, reserved: [{range: [0xfee00000, 0xfeefffff], type: msi}]}
  - {id: "0000:03:00.0", iommu: viommu0, group: 3, reserved: [{range: [0xfee00000, 0xfeefffff], type: msi}]}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {size: 1GiB}
machine: {type: q35, cpu_vendor: intel}
devices: [{host: "0000:01:00.0"}, {host: "0000:02:00.0"}, {host: "0000:03:00.0"}]
---
apiVersion: ioplan/v1
kind: Policy
name: p
rules: [{name: apart, separate: {a: {host: "0000:01:00.0"}, b: {host: "0000:02:00.0"}}}]
)"},
      {"mock, an odd cycle", R"(
apiVersion: ioplan/v1
kind: Host
name: mock
iommus: [{id: mock0, driver: mock}]
devices:
  - {id: m0, iommu: mock0, group: 1, dma_coherent: {value: true, source: driver}, pasid_bits: 20}
  - {id: m1, iommu: mock0, group: 2, dma_coherent: {value: true, source: driver}, pasid_bits: 20, no_dirty: true}
  - {id: m2, iommu: mock0, group: 3, dma_coherent: {value: true, source: driver}, pasid_bits: 20}
  - {id: m3, iommu: mock0, group: 4, dma_coherent: {value: true, source: driver}, pasid_bits: 20}
  - {id: m4, iommu: mock0, group: 5, dma_coherent: {value: true, source: driver}, pasid_bits: 20}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {ranges: [{gpa: [0x1000000, 0x1ffffff], access: rw}]}
devices: [{host: m0}, {host: m1}, {host: m2}, {host: m3}, {host: m4}]
needs: {pasid: preferred}
---
apiVersion: ioplan/v1
kind: Policy
name: p
rules:
  - {name: a, separate: {a: {host: m0}, b: {host: m1}}}
  - {name: b, separate: {a: {host: m1}, b: {host: m2}}}
  - {name: c, separate: {a: {host: m2}, b: {host: m3}}}
  - {name: d, separate: {a: {host: m3}, b: {host: m4}}}
  - {name: e, separate: {a: {host: m4}, b: {host: m0}}}
  - {name: f, require: {dirty_tracking: true}, for: {host: m3}}
)"},
      {"s390, two functions of unlike tables", R"(
apiVersion: ioplan/v1
kind: Host
name: z
iommus:
  - {id: z0, driver: s390, dma_range: [0x100000000, 0x3ffffffffff]}
  - {id: z1, driver: s390, dma_range: [0x0, 0x1fffffffffffff], table_rs: true}
devices:
  - {id: "0000:00:00.0", iommu: z0, group: 1, dma_coherent: {value: true, source: architecture}}
  - {id: "0001:00:00.0", iommu: z1, group: 2, dma_coherent: {value: true, source: architecture}}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {ranges: [{gpa: [0x100000000, 0x13fffffff], access: rw}]}
devices: [{host: "0000:00:00.0"}, {host: "0001:00:00.0"}]
)"},
      {"infeasible by a direct region", R"(
apiVersion: ioplan/v1
kind: Host
name: gen8
kernel: {arch: x86_64}
iommus: [{id: dmar0, driver: intel, cap: 0xd2008c40660462, ecap: 0xf050da}]
devices:
  - {id: "0000:01:00.0", iommu: dmar0, group: 1}
  - {id: "0000:01:00.1", iommu: dmar0, group: 1, reserved: [{range: [0xdffff000, 0xdfffffff], type: direct}]}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {size: 2GiB}
machine: {cpu_vendor: intel}
devices: [{host: "0000:01:00.0"}]
)"},
  };
  return all;
}

Request loaded(const std::string& documents) {
  auto result = load_text("case.yaml", documents);
  EXPECT_TRUE(result) << (result ? "" : to_text(result.error()));
  return result ? result->request : Request{};
}

// ------------------------------------------------------------------------------------------------- doubting

class Doubt {
 public:
  static Doubt& tally() {
    static Doubt doubt;
    return doubt;
  }

  // The judge and the replay must agree about this plan.
  void compare(const std::string& what, const Plan& plan, const Request& request, const replay::Replay& replay) {
    const Judgement judgement = check_plan(plan, request, kernel_law());
    const std::vector<std::string> faults = replay.faults(plan);
    ++mutants_[what];
    if (!faults.empty()) ++wrong_[what];
    count(judgement);
    if (judgement.accepted() == faults.empty()) return;
    ADD_FAILURE() << what << ": " << (faults.empty() ? "right, says the replay" : "wrong: " + faults.front())
                  << "; judge: "
                  << (judgement.accepted()
                          ? "accepts"
                          : judgement.objections.front().obligation + ": " + judgement.objections.front().text);
  }

  static std::set<std::string> obligations_of(const Judgement& judgement) {
    std::set<std::string> names;
    for (const Objection& o : judgement.objections) names.insert(o.obligation);
    return names;
  }

  void count(const Judgement& judgement) {
    const std::set<std::string> names = obligations_of(judgement);
    for (const std::string& o : names) ++rejected_[o];
    if (names.size() == 1) ++alone_[*names.begin()];
  }

  // Plans that this obligation and no other rejects.
  int alone(std::string_view obligation) const {
    const auto it = alone_.find(std::string(obligation));
    return it == alone_.end() ? 0 : it->second;
  }

  int rejected(std::string_view obligation) const {
    const auto it = rejected_.find(std::string(obligation));
    return it == rejected_.end() ? 0 : it->second;
  }

  void print() const {
    int all = 0;
    int wrong = 0;
    for (const auto& [what, n] : mutants_) all += n;
    for (const auto& [what, n] : wrong_) wrong += n;
    std::printf("%d mutants, %d of them wrong\n", all, wrong);
    for (const Obligation& o : kObligations) {
      std::printf("  %-12s rejects %6d, alone %6d\n", std::string(o.name).c_str(), rejected(o.name), alone(o.name));
    }
  }

 private:
  std::map<std::string, int> mutants_, wrong_, rejected_, alone_;
};

// As the judge gets it: written and read back.
Plan reread(const Plan& plan) {
  auto result = read_plan("plan.json", to_json(plan));
  EXPECT_TRUE(result) << (result ? "" : to_text(result.error()));
  return result ? *result : plan;
}

// Doubts one answer; false when it is wrong to begin with (then the judge must say so too).
bool doubt_answer(const std::string& name, const Request& request) {
  const Plan plan = reread(make_plan(request, kernel_law()));
  const replay::Replay replay(request, kernel_law(), plan);
  Doubt& doubt = Doubt::tally();
  doubt.compare(name, plan, request, replay);
  if (!replay.faults(plan).empty()) return false;
  const auto derive = [&](Plan p) { return replay.derived(std::move(p)); };
  const auto mutants =
      plan.verdict == Verdict::feasible ? mutants::mutants_of(plan, request, derive) : mutants::mutants_of_a_no(plan);
  for (const mutants::Mutant& m : mutants) doubt.compare(name + ": " + m.name, m.plan, request, replay);
  return true;
}

// The same decisions as an answer to a stricter request.
void doubt_stricter(const std::string& name, const Request& request) {
  const Plan plan = reread(make_plan(request, kernel_law()));
  if (plan.verdict != Verdict::feasible) return;
  for (const mutants::StricterRequest& stricter : mutants::stricter_requests(request, plan)) {
    const Plan truth = make_plan(stricter.request, kernel_law());
    if (!check::gaps_of(stricter.request).empty()) continue;
    const replay::Replay replay(stricter.request, kernel_law(), truth);
    Plan stale = plan;
    stale.fingerprint = fingerprint(stricter.request.host);
    stale.assumptions = truth.assumptions;
    Doubt::tally().compare(name + " under " + stricter.name, replay.derived(stale), stricter.request, replay);
  }
}

TEST(Judge, HandMadePlansAndTheirMutants) {
  for (const Case& c : cases()) {
    const Request request = loaded(c.documents);
    EXPECT_TRUE(check::gaps_of(request).empty()) << c.name << ": " << check::gaps_of(request).front().path;
    EXPECT_TRUE(doubt_answer(c.name, request)) << c.name;
  }
}

TEST(Judge, HandMadePlansUnderStricterRequests) {
  for (const Case& c : cases()) doubt_stricter(c.name, loaded(c.documents));
}

int scaled(int count) {
  const char* scale = std::getenv("IOPLAN_SCALE");
  return scale == nullptr ? count : static_cast<int>(count * std::atof(scale));
}

TEST(Judge, RandomPlansAndTheirMutants) {
  int doubted = 0;
  for (std::uint64_t seed = 1; doubted < scaled(60) && seed < 100'000; ++seed) {
    const Request request = generator::random_request(seed);
    if (!check::gaps_of(request).empty()) continue;
    if (make_plan(request, kernel_law()).verdict != Verdict::feasible && seed % 8 != 0) continue;
    doubted += doubt_answer("seed " + std::to_string(seed), request) ? 1 : 0;
  }
  EXPECT_EQ(doubted, scaled(60));
}

// ------------------------------------------------------------------------------------------------- unknown facts

constexpr const char* kUnknown = R"(
apiVersion: ioplan/v1
kind: Host
name: unknown
kernel: {arch: x86_64}
iommus:
  - {id: dmar0, driver: intel, cap: 0xd2008c40660462}
  - {id: ivhd0, driver: amd, efr: 0x246577efa2254afa, efr2: 0x0}
devices:
  - {id: "0000:01:00.0", iommu: dmar0, group: 1}
  - {id: "0000:02:00.0", iommu: ivhd0, group: 2}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {size: 2GiB, backing: 4KiB}
machine: {type: q35}
)";

Request unknown_request(const std::string& devices) { return loaded(std::string(kUnknown) + devices); }

TEST(Judge, AcceptsAnUndecidedAnswerThatNamesTheFact) {
  const Request request = unknown_request("devices: [{host: \"0000:01:00.0\"}]\n");
  const Plan plan = reread(make_plan(request, kernel_law()));
  ASSERT_EQ(plan.verdict, Verdict::undecided);
  const Judgement judgement = check_plan(plan, request, kernel_law());
  EXPECT_TRUE(judgement.accepted()) << judgement.objections.front().text;
  for (const mutants::Mutant& m : mutants::mutants_of_a_no(plan)) {
    const Judgement rejected = check_plan(m.plan, request, kernel_law());
    EXPECT_FALSE(rejected.accepted()) << m.name;
    Doubt::tally().count(rejected);
  }
}

// A plan for one value of a fact that decides is no answer while the fact is unknown.
TEST(Judge, RejectsAGuess) {
  const Request request = unknown_request("devices: [{host: \"0000:01:00.0\"}]\n");
  for (const check::Completion& completion : check::completions_of(request, 64).all) {
    Plan guess = make_plan(completion.request, kernel_law());
    guess.fingerprint = fingerprint(request.host);
    guess.assumptions = make_plan(request, kernel_law()).assumptions;
    EXPECT_FALSE(check_plan(guess, request, kernel_law()).accepted()) << completion.text;
  }
}

// An unknown CPU vendor moves no memory of two GiB.
TEST(Judge, AcceptsAPlanThatNoUnknownFactChanges) {
  const Request request = unknown_request("devices: [{host: \"0000:02:00.0\"}]\n");
  EXPECT_FALSE(check::gaps_of(request).empty());
  const Plan plan = reread(make_plan(request, kernel_law()));
  ASSERT_EQ(plan.verdict, Verdict::feasible);
  const Judgement judgement = check_plan(plan, request, kernel_law());
  EXPECT_TRUE(judgement.accepted()) << judgement.objections.front().text;
}

// ------------------------------------------------------------------------------------------------- nonsense

// A plan document that can be read may say anything; the judge objects or not, and does not fall over.
TEST(Judge, StandsAnyPlanThatCanBeRead) {
  std::mt19937_64 random(7);
  int read = 0;
  for (const Case& c : cases()) {
    const Request request = loaded(c.documents);
    const std::string text = to_json(make_plan(request, kernel_law()));
    for (int round = 0; round < scaled(200); ++round) {
      std::string damaged = text;
      for (int k = 0; k < 3; ++k) {
        const std::size_t at = random() % damaged.size();
        if (std::isxdigit(static_cast<unsigned char>(damaged[at])) != 0)
          damaged[at] = "0123456789abcdef"[random() % 16];
      }
      const auto plan = read_plan("damaged.json", damaged);
      if (!plan) continue;
      ++read;
      check_plan(*plan, request, kernel_law());
    }
  }
  EXPECT_GT(read, scaled(500));
}

// ------------------------------------------------------------------------------------------------- the table

// Last, because it sums up what the tests above counted.
TEST(Judge, EveryObligationAloneRejectsSomething) {
  if (Doubt::tally().rejected(obligation::steps) == 0) GTEST_SKIP() << "the tests that doubt were not run";
  Doubt::tally().print();
  // Plans for type1 are doubted in type1_plan_test.
  const std::set<std::string_view> elsewhere = {obligation::interface, obligation::joining};
  for (const Obligation& o : kObligations) {
    if (elsewhere.contains(o.name)) continue;
    EXPECT_GT(Doubt::tally().alone(o.name), 0) << o.name;
  }
}

}  // namespace
}  // namespace ioplan
