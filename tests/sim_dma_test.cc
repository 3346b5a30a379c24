// The simulated machine end to end: bytes through devices' HWPTs, faults with their reasons, dirty logging, what is pinned
// and charged, and resources that fail one by one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include "backends/sim/iommufd.h"
#include "backends/sim/machine.h"
#include "constraints/kernel_law.h"
#include "engine/base/log2.h"

namespace ioplan::sim {
namespace {

constexpr std::uint64_t k4K = 4096, k64K = 1 << 16, k2M = 1 << 21, k512M = 1 << 29, k1G = 1 << 30;
constexpr std::uint32_t kReadWrite = kMapFixedIova | kMapWriteable | kMapReadable;
constexpr std::uint64_t kIova = 0x40000000;  // within every driver's aperture, past every reserved region used here

// One unit and devices "0".."n-1" behind it, each in a group of its own.
struct Sketch {
  std::string_view name;
  Driver driver;
  std::function<void(Unit&)> facts;
  std::uint32_t flags = 0;       // of the HWPT under test
  std::uint64_t page_size = k4K;
  bool automatic = false;        // attached to the IOAS
};

const std::uint64_t kIntelCap = 0x19ed008c40780c66, kIntelEcap = 0x3ef9ea6f050df;  // Sapphire Rapids
const std::uint64_t kClientEcap = 0xf020df;                                          // no scalable mode, snoop control

std::vector<Sketch> every_driver() {
  const auto intel = [](std::uint64_t ecap) {
    return [ecap](Unit& u) {
      u.facts[UnitFact::cap] = kIntelCap;
      u.facts[UnitFact::ecap] = ecap;
    };
  };
  const auto amd = [](Unit& u) {
    u.facts[UnitFact::efr] = 0x25bf732fa2295afe;
    u.facts[UnitFact::efr2] = 0x1d;
  };
  const auto smmuv3 = [](Unit& u) {
    u.facts[UnitFact::idr0] = 0x0d8ff1ff;
    u.facts[UnitFact::idr1] = 0x0e739d10;
    u.facts[UnitFact::idr5] = 0x476;
    u.facts[UnitFact::coherent] = 1;
  };
  const auto smmuv2 = [](Unit& u) {
    u.facts[UnitFact::page_sizes] = k4K | k2M | k1G;
    u.facts[UnitFact::stage1] = 1;
    u.facts[UnitFact::stage2] = 1;
    u.facts[UnitFact::input_bits] = 48;
    u.facts[UnitFact::ipa_bits] = 40;
    u.facts[UnitFact::coherent] = 1;
  };
  return {
      {"intel-first-stage", Driver::intel, intel(kIntelEcap), 0},
      {"intel-second-stage", Driver::intel, intel(kClientEcap), 0},
      {"intel-dirty", Driver::intel, intel(kIntelEcap), kHwptDirtyTracking},
      {"amd", Driver::amd, amd, 0},
      {"amd-dirty", Driver::amd, amd, kHwptDirtyTracking},
      {"smmuv3", Driver::smmuv3, smmuv3, 0},
      {"smmuv3-dirty", Driver::smmuv3, smmuv3, kHwptDirtyTracking},
      {"smmuv3-nest-parent", Driver::smmuv3, smmuv3, kHwptNestParent},
      {"smmuv3-64k", Driver::smmuv3, smmuv3, 0, k64K},
      {"smmuv2", Driver::smmuv2, smmuv2, 0, k4K, true},
      {"virtio", Driver::virtio, [](Unit& u) { u.facts[UnitFact::page_sizes] = k4K | k2M; }, 0},
      {"s390", Driver::s390,
       [](Unit& u) {
         u.facts[UnitFact::dma_start] = 0;
         u.facts[UnitFact::dma_last] = last_of_width(42);
       },
       0},
      {"mock", Driver::mock, [](Unit&) {}, kHwptDirtyTracking},
  };
}

Host host_of(const Sketch& sketch, std::size_t devices) {
  Host host;
  host.kernel.facts[KernelFact::page_size] = sketch.page_size;
  Unit unit{.id = "unit", .driver = sketch.driver, .facts = {}};
  sketch.facts(unit);
  host.units.push_back(unit);
  for (std::size_t i = 0; i < devices; ++i) {
    Device device;
    device.id = std::to_string(i);
    device.unit = UnitIndex(0);
    device.group = static_cast<std::uint32_t>(i);
    device.facts[DeviceFact::canwbs] = 0;
    device.facts[DeviceFact::pasid_bits] = 8;
    host.devices.push_back(device);
  }
  return host;
}

struct Rig {
  explicit Rig(const Sketch& s, std::size_t devices = 1, MachineOptions options = {})
      : sketch(s), machine(Machine::create(host_of(s, devices), kernel_law(), options).value()), context(machine->open()) {
    ioas = context->ioas_alloc().value();
  }

  // Binds device `n` and gives it the HWPT under test.
  ObjectId attach(std::size_t n = 0) {
    const ObjectId device = context->bind(std::to_string(n)).value();
    hwpt = sketch.automatic ? ioas : context->hwpt_alloc(device, ioas, sketch.flags).value();
    hwpt = context->attach(device, hwpt).value();
    return device;
  }

  int map(const Memory& m, std::uint64_t iova, std::uint32_t flags = kReadWrite) {
    const auto answer = context->ioas_map_file(ioas, flags, m.fd, 0, m.size, iova);
    return answer ? 0 : answer.error().errno_value;
  }

  Sketch sketch;
  std::unique_ptr<Machine> machine;
  std::unique_ptr<Context> context;
  ObjectId ioas = 0, hwpt = 0;
};

std::vector<std::byte> random_bytes(std::mt19937_64& random, std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

// What the CPU sees at an offset of an allocation.
std::vector<std::byte> cpu_read(Machine& machine, const Memory& m, std::uint64_t offset, std::size_t n) {
  std::vector<Extent> extents;
  machine.memory().extents(m, offset, n, extents);
  std::vector<std::byte> bytes(n);
  std::size_t done = 0;
  for (const Extent& e : extents) {
    EXPECT_TRUE(machine.memory().read(e.pa, std::span(bytes).subspan(done, e.size)));
    done += e.size;
  }
  return bytes;
}

const Sketch& sketch_named(std::string_view name) {
  static const std::vector<Sketch> all = every_driver();
  return *std::ranges::find(all, name, &Sketch::name);
}

template <class T>
int errno_of(const Answer<T>& answer) {
  return answer ? 0 : answer.error().errno_value;
}

template <class T>
std::string_view reason_of(const Answer<T>& answer) {
  return answer ? "" : answer.error().reason;
}

TEST(SimDma, BytesReachTheMemoryThatIsMapped) {
  std::mt19937_64 random(3);
  for (const Sketch& sketch : every_driver()) {
    SCOPED_TRACE(sketch.name);
    Rig rig(sketch);
    std::map<std::uint64_t, Memory> mapped;
    std::uint64_t iova = kIova;
    for (std::uint64_t backing : {k4K, k64K, k2M}) {
      const Memory m = rig.machine->memory().allocate(std::max(5 * backing, 4 * k64K), backing);
      if (backing == k64K) rig.attach();  // what is mapped before and what is mapped after
      ASSERT_EQ(rig.map(m, iova), 0);
      mapped.emplace(iova, m);
      iova += (m.size + k2M) & ~(k2M - 1);
    }
    for (int round = 0; round < 200; ++round) {
      const auto& [start, m] = *std::next(mapped.begin(), static_cast<std::ptrdiff_t>(random() % mapped.size()));
      const std::uint64_t offset = random() % m.size;
      const std::size_t n = 1 + random() % std::min<std::uint64_t>(m.size - offset, 20000);
      const auto bytes = random_bytes(random, n);
      const auto written = rig.machine->dma_write("0", start + offset, bytes);
      ASSERT_EQ(errno_of(written), 0) << reason_of(written);
      ASSERT_EQ(cpu_read(*rig.machine, m, offset, n), bytes);
      std::vector<std::byte> seen(n);
      ASSERT_EQ(errno_of(rig.machine->dma_read("0", start + offset, seen)), 0);
      ASSERT_EQ(seen, bytes);
    }
  }
}

TEST(SimDma, FaultsSayWhy) {
  for (const Sketch& sketch : every_driver()) {
    SCOPED_TRACE(sketch.name);
    Rig rig(sketch);
    std::vector<std::byte> bytes(3 * k64K, std::byte{7});
    EXPECT_EQ(errno_of(rig.machine->dma_write("nobody", kIova, bytes)), ENODEV);
    EXPECT_EQ(reason_of(rig.machine->dma_write("0", kIova, bytes)), "nobody has bound the device");
    const ObjectId device = rig.context->bind("0").value();
    EXPECT_EQ(reason_of(rig.machine->dma_write("0", kIova, bytes)), "DMA is blocked: the device is attached to nothing");
    EXPECT_EQ(errno_of(rig.context->unbind(device)), 0);

    rig.attach();
    const Memory m = rig.machine->memory().allocate(2 * k64K, k64K);
    EXPECT_EQ(errno_of(rig.machine->dma_write("0", kIova, bytes)), EFAULT);
    ASSERT_EQ(rig.map(m, kIova), 0);
    const auto past = rig.machine->dma_write("0", kIova, bytes);
    EXPECT_EQ(errno_of(past), EFAULT);
    EXPECT_NE(reason_of(past), "");
    EXPECT_EQ(cpu_read(*rig.machine, m, 0, m.size), std::vector<std::byte>(m.size, std::byte{7}))
        << "what lies in front of the fault has been written";
    EXPECT_EQ(errno_of(rig.machine->dma_write("0", kIova, bytes, 5)), EFAULT) << "no PASID is attached";

    ASSERT_EQ(rig.context->ioas_unmap(rig.ioas, kIova, m.size).value(), m.size);
    EXPECT_EQ(errno_of(rig.machine->dma_write("0", kIova, std::span(bytes).first(1))), EFAULT);
    EXPECT_EQ(rig.context->pinned_bytes(), 0U);
  }
}

TEST(SimDma, ReadOnlyMemoryIsNotWritten) {
  for (const Sketch& sketch : every_driver()) {
    if (sketch.driver == Driver::virtio) continue;  // the device keeps permissions to itself
    SCOPED_TRACE(sketch.name);
    Rig rig(sketch);
    rig.attach();
    const Memory m = rig.machine->memory().allocate(k64K, k64K, false);
    EXPECT_EQ(rig.map(m, kIova), EFAULT) << "memory that is not writeable cannot be pinned for writing";
    ASSERT_EQ(rig.map(m, kIova, kMapFixedIova | kMapReadable), 0);
    std::vector<std::byte> bytes(10);
    EXPECT_EQ(errno_of(rig.machine->dma_read("0", kIova, bytes)), 0);
    EXPECT_EQ(errno_of(rig.machine->dma_write("0", kIova, bytes)), EFAULT);
  }
}

TEST(SimDma, DirtyBitmapsTellWhatDevicesWrote) {
  std::mt19937_64 random(5);
  for (const Sketch& sketch : every_driver()) {
    if ((sketch.flags & kHwptDirtyTracking) == 0) continue;
    SCOPED_TRACE(sketch.name);
    Rig rig(sketch);
    rig.attach();
    constexpr std::uint64_t kPages = 200;
    const Memory m = rig.machine->memory().allocate(kPages * k4K, k4K);
    ASSERT_EQ(rig.map(m, kIova), 0);
    const auto read = [&](DirtyRead mode) {
      std::vector<std::uint64_t> words(4);
      EXPECT_EQ(errno_of(rig.context->hwpt_get_dirty_bitmap(rig.hwpt, mode, kIova, m.size, k4K, words)), 0);
      return words;
    };
    const std::vector<std::uint64_t> none(4);
    const std::byte mark{1};
    if (sketch.driver != Driver::smmuv3) {  // Arm's tables log always
      ASSERT_EQ(errno_of(rig.machine->dma_write("0", kIova, {&mark, 1})), 0);
      EXPECT_EQ(read(DirtyRead::keep), none) << "nothing is logged before tracking is on";
    }
    ASSERT_EQ(errno_of(rig.context->hwpt_set_dirty_tracking(rig.hwpt, true)), 0);
    EXPECT_EQ(read(DirtyRead::keep), none) << "turning it on gives a clean start";
    for (int round = 0; round < 20; ++round) {
      std::vector<std::uint64_t> expected(4);
      for (int i = 0; i < 10; ++i) {
        const std::uint64_t page = random() % kPages;
        const auto written = rig.machine->dma_write("0", kIova + page * k4K + random() % k4K, {&mark, 1});
        ASSERT_EQ(errno_of(written), 0);
        expected[page / 64] |= std::uint64_t{1} << page % 64;
      }
      EXPECT_EQ(read(DirtyRead::keep), expected);
      EXPECT_EQ(read(DirtyRead::clear), expected);
      EXPECT_EQ(read(DirtyRead::clear), none);
    }
    if (sketch.driver == Driver::smmuv3) continue;
    ASSERT_EQ(errno_of(rig.context->hwpt_set_dirty_tracking(rig.hwpt, false)), 0);
    ASSERT_EQ(errno_of(rig.machine->dma_write("0", kIova, {&mark, 1})), 0);
    EXPECT_EQ(read(DirtyRead::clear), none);
  }
}

TEST(SimDma, EveryHwptOfAnIoasHoldsEverything) {
  Rig rig(sketch_named("intel-dirty"), 3);
  const Memory before = rig.machine->memory().allocate(4 * k2M, k2M);
  ASSERT_EQ(rig.map(before, kIova), 0);
  rig.attach(0);
  rig.attach(1);
  rig.sketch.flags = 0;  // a first-stage HWPT in the same IOAS
  rig.attach(2);
  const Memory after = rig.machine->memory().allocate(64 * k4K, k4K);
  ASSERT_EQ(rig.map(after, kIova + k512M), 0);
  EXPECT_EQ(rig.context->pinned_bytes(), before.size + after.size) << "once, not once for each HWPT";
  std::mt19937_64 random(9);
  for (const auto& [memory, iova] : {std::pair(before, kIova), std::pair(after, kIova + k512M)}) {
    const auto bytes = random_bytes(random, 5000);
    ASSERT_EQ(errno_of(rig.machine->dma_write("0", iova + 3000, bytes)), 0);
    for (const char* device : {"1", "2"}) {
      std::vector<std::byte> seen(bytes.size());
      ASSERT_EQ(errno_of(rig.machine->dma_read(device, iova + 3000, seen)), 0);
      EXPECT_EQ(seen, bytes);
    }
  }
}

TEST(SimDma, ReplaceMovesTheDeviceToOtherMemory) {
  Rig rig(sketch_named("smmuv3"));
  const ObjectId device = rig.attach();
  const Memory here = rig.machine->memory().allocate(k4K, k4K), there = rig.machine->memory().allocate(k4K, k4K);
  ASSERT_EQ(rig.map(here, kIova), 0);
  const ObjectId other = rig.context->ioas_alloc().value();
  ASSERT_EQ(errno_of(rig.context->ioas_map_file(other, kReadWrite, there.fd, 0, k4K, kIova)), 0);
  const std::byte one{1}, two{2};
  ASSERT_EQ(errno_of(rig.machine->dma_write("0", kIova, {&one, 1})), 0);
  ASSERT_TRUE(rig.context->replace(device, other));
  ASSERT_EQ(errno_of(rig.machine->dma_write("0", kIova, {&two, 1})), 0);
  EXPECT_EQ(cpu_read(*rig.machine, here, 0, 1).front(), one);
  EXPECT_EQ(cpu_read(*rig.machine, there, 0, 1).front(), two);
}

TEST(SimDma, PasidsHaveTheirOwnHwpt) {
  Rig rig(sketch_named("smmuv3"));
  rig.sketch.flags = kHwptPasid;
  const ObjectId device = rig.attach();
  const ObjectId other = rig.context->ioas_alloc().value();
  const ObjectId hwpt = rig.context->hwpt_alloc(device, other, kHwptPasid).value();
  ASSERT_TRUE(rig.context->attach(device, hwpt, 9));
  const Memory m = rig.machine->memory().allocate(k4K, k4K);
  ASSERT_EQ(errno_of(rig.context->ioas_map_file(other, kReadWrite, m.fd, 0, k4K, kIova)), 0);
  const std::byte mark{3};
  EXPECT_EQ(errno_of(rig.machine->dma_write("0", kIova, {&mark, 1})), EFAULT) << "the RID's IOAS is empty";
  EXPECT_EQ(errno_of(rig.machine->dma_write("0", kIova, {&mark, 1}, 9)), 0);
  EXPECT_EQ(errno_of(rig.context->detach(device, 9)), 0);
  EXPECT_EQ(reason_of(rig.machine->dma_write("0", kIova, {&mark, 1}, 9)), "DMA is blocked: the PASID is attached to nothing");
}

TEST(SimDma, InterruptsReachTheDoorbell) {
  for (std::string_view name : {"smmuv3", "smmuv3-64k", "smmuv2"}) {
    SCOPED_TRACE(name);
    Rig rig(sketch_named(name));
    rig.attach();
    const std::vector<std::byte> message(4, std::byte{1});
    EXPECT_EQ(errno_of(rig.machine->dma_write("0", 0x08000040, message)), 0);
    EXPECT_EQ(errno_of(rig.machine->dma_write("0", 0x08000000 + rig.sketch.page_size, message)), EFAULT);
    EXPECT_EQ(rig.context->hwpt(rig.hwpt)->doorbells, std::vector<std::uint64_t>{0x08000000});
  }
}

TEST(SimDma, MappedMemoryOutlivesItsOwner) {
  Rig rig(sketch_named("amd"));
  rig.attach();
  const Memory m = rig.machine->memory().allocate(4 * k4K, k4K);
  ASSERT_EQ(errno_of(rig.context->ioas_map(rig.ioas, kReadWrite, m.user_va, m.size, kIova)), 0);
  rig.machine->memory().free(m);
  const std::vector<std::byte> bytes(m.size, std::byte{5});
  EXPECT_EQ(errno_of(rig.machine->dma_write("0", kIova, bytes)), 0);
  EXPECT_EQ(errno_of(rig.context->ioas_map(rig.ioas, kReadWrite, m.user_va, m.size, kIova + k2M)), EFAULT);
  EXPECT_TRUE(rig.context->ioas_unmap(rig.ioas, kIova, m.size));
}

TEST(SimAccounting, PagesArePinnedWhileAHwptHoldsThem) {
  Rig rig(sketch_named("amd"));
  const Memory m = rig.machine->memory().allocate(16 * k4K, k4K);
  ASSERT_EQ(rig.map(m, kIova), 0);
  EXPECT_EQ(rig.context->pinned_bytes(), 0U) << "nobody needs them yet";
  const ObjectId device = rig.attach();
  EXPECT_EQ(rig.context->pinned_bytes(), m.size);
  EXPECT_EQ(rig.context->locked_bytes(), m.size);
  const ObjectId second = rig.context->ioas_alloc().value();
  ASSERT_TRUE(rig.context->ioas_copy(second, rig.ioas, kReadWrite, 4 * k4K, kIova, kIova + 2 * k4K));
  const ObjectId hwpt = rig.context->hwpt_alloc(device, second, 0).value();
  EXPECT_EQ(rig.context->pinned_bytes(), m.size) << "shared by copy: counted once";
  ASSERT_TRUE(rig.context->ioas_unmap(rig.ioas, 0, ~std::uint64_t{0}));
  EXPECT_EQ(rig.context->pinned_bytes(), 4 * k4K) << "what the copy still holds";
  ASSERT_TRUE(rig.context->destroy(hwpt));
  EXPECT_EQ(rig.context->pinned_bytes(), 0U);
}

TEST(SimAccounting, TheLimitIsPerUserAndPerProcess) {
  MachineOptions options;
  options.memlock_limit = 10 * k4K;
  Rig rig(sketch_named("amd"), 2, options);
  rig.attach(0);
  auto by_process = rig.machine->open();
  ASSERT_TRUE(by_process->set_option(Option::rlimit_mode, 0, 1));
  const ObjectId ioas = by_process->ioas_alloc().value();
  ASSERT_TRUE(by_process->attach(by_process->bind("1").value(), ioas));
  const Memory m = rig.machine->memory().allocate(8 * k4K, k4K);
  const auto map = [&](Context& context, ObjectId where, std::uint64_t iova, std::uint64_t length) {
    return errno_of(context.ioas_map_file(where, kReadWrite, m.fd, 0, length, iova));
  };
  EXPECT_EQ(map(*rig.context, rig.ioas, kIova, 8 * k4K), 0);
  const std::string mapped = rig.machine->world();
  EXPECT_EQ(map(*rig.context, rig.ioas, kIova + k2M, 3 * k4K), ENOMEM);
  EXPECT_EQ(rig.machine->world(), mapped);
  EXPECT_EQ(map(*rig.context, rig.ioas, kIova + k2M, 2 * k4K), 0) << "exactly the limit";
  EXPECT_EQ(map(*by_process, ioas, kIova, 8 * k4K), 0) << "another sum";
  EXPECT_THAT(rig.machine->world(), testing::StartsWith("locked user 40960 process 32768\n"));
  by_process.reset();
  ASSERT_TRUE(rig.context->ioas_unmap(rig.ioas, 0, ~std::uint64_t{0}));
  EXPECT_THAT(rig.machine->world(), testing::StartsWith("locked user 0 process 0\n"));
}

// Every resource of every step fails once, with nothing left behind; then the step succeeds.
TEST(SimFailNth, EveryStepLeavesNoTrace) {
  std::uint64_t struck = 0;
  for (const Sketch& sketch : every_driver()) {
    SCOPED_TRACE(sketch.name);
    Rig rig(sketch, 2);
    Context& c = *rig.context;
    const Memory m = rig.machine->memory().allocate(40 * k64K, k64K);
    ObjectId device = 0, hwpt = 0, second = 0, access = 0;
    const auto keep = [](ObjectId& id) { return [&id](ObjectId made) { id = made; return 0; }; };
    const auto map = [&](ObjectId ioas, std::uint64_t iova) {
      return errno_of(c.ioas_map_file(ioas, kReadWrite, m.fd, 0, m.size, iova));
    };
    const auto target = [&] { return sketch.automatic ? rig.ioas : hwpt; };
    const std::vector<std::pair<std::string_view, std::function<int()>>> steps = {
        {"map", [&] { return map(rig.ioas, kIova); }},
        {"bind", [&] { return errno_of(c.bind("0").map(keep(device))); }},
        {"hwpt", [&] { return sketch.automatic ? 0 : errno_of(c.hwpt_alloc(device, rig.ioas, sketch.flags).map(keep(hwpt))); }},
        {"attach", [&] { return errno_of(c.attach(device, target())); }},
        {"map into the HWPT", [&] { return map(rig.ioas, kIova + k512M); }},
        {"access", [&] { return errno_of(c.access_create(rig.ioas, true).map(keep(access))); }},
        {"second IOAS", [&] { return errno_of(c.ioas_alloc().map(keep(second))); }},
        {"allow", [&] { return errno_of(c.ioas_allow_iovas(second, std::vector<Range>{{kIova, kIova + 2 * k512M - 1}})); }},
        {"copy", [&] { return errno_of(c.ioas_copy(second, rig.ioas, kReadWrite, m.size, kIova, kIova)); }},
        {"fault queue", [&] { return errno_of(c.fault_queue_alloc()); }},
    };
    for (const auto& [name, step] : steps) {
      SCOPED_TRACE(name);
      const std::string before = rig.machine->world();
      for (std::uint64_t nth = 1;; ++nth) {
        ASSERT_LT(nth, 500U);
        rig.machine->fail_nth(nth);
        const int error = step();
        if (!rig.machine->injected()) {
          rig.machine->fail_nth(0);
          ASSERT_EQ(error, 0);
          break;
        }
        ++struck;
        ASSERT_EQ(error, ENOMEM) << "resource " << nth;
        ASSERT_EQ(rig.machine->world(), before) << "resource " << nth;
      }
    }
    const std::byte mark{8};
    EXPECT_EQ(errno_of(rig.machine->dma_write("0", kIova + k512M, {&mark, 1})), 0);
    rig.context.reset();
    EXPECT_EQ(rig.machine->tables().bytes_in_use(), 0U) << "closing leaves no table";
  }
  std::printf("resources that were missing once: %llu\n", static_cast<unsigned long long>(struck));
  EXPECT_GE(struck, 200U);
}

TEST(SimMachine, UnknownFactsAreNamed) {
  Sketch sketch = sketch_named("intel-dirty");
  sketch.facts = [](Unit& u) { u.facts[UnitFact::cap] = kIntelCap; };
  const auto machine = Machine::create(host_of(sketch, 1), kernel_law());
  ASSERT_FALSE(machine);
  EXPECT_EQ(machine.error().message, "`iommus.unit.ecap` is unknown, and the driver of `0` reads it");
}

TEST(SimMachine, ADeviceOfUnknownPlaceCannotBeBound) {
  Host host = host_of(sketch_named("amd"), 2);
  host.devices[1].group.reset();
  auto machine = Machine::create(host, kernel_law()).value();
  auto context = machine->open();
  EXPECT_TRUE(context->bind("0"));
  EXPECT_EQ(errno_of(context->bind("1")), ENODEV);
}

TEST(SimMachine, TheWorldTellsWhatHappenedAndForgetsWhatIsGone) {
  auto machine = Machine::create(host_of(sketch_named("smmuv3"), 1), kernel_law()).value();
  const std::string empty = machine->world();
  auto context = machine->open();
  const ObjectId ioas = context->ioas_alloc().value();
  const ObjectId device = context->bind("0").value();
  const std::string bound = machine->world();
  ASSERT_TRUE(context->attach(device, ioas));
  EXPECT_NE(machine->world(), bound);
  ASSERT_TRUE(context->detach(device));
  EXPECT_EQ(machine->world(), bound);
  context.reset();
  EXPECT_EQ(machine->world(), empty);
}

// Maps and DMA at once: what machine.h allows (run under TSan by ./dev).
TEST(SimThreads, MapsOfDisjointRangesAndDmaGoOnTogether) {
  Rig rig(sketch_named("amd-dirty"));
  rig.attach();
  ASSERT_TRUE(rig.context->hwpt_set_dirty_tracking(rig.hwpt, true));
  const Memory stable = rig.machine->memory().allocate(64 * k4K, k4K);
  ASSERT_EQ(rig.map(stable, kIova), 0);
  std::atomic<bool> stop{false};
  std::thread device([&] {
    std::mt19937_64 random(1);
    while (!stop) {
      const std::byte mark{static_cast<unsigned char>(random())};
      EXPECT_EQ(errno_of(rig.machine->dma_write("0", kIova + random() % stable.size, {&mark, 1})), 0);
      std::vector<std::uint64_t> words(1);
      EXPECT_TRUE(rig.context->hwpt_get_dirty_bitmap(rig.hwpt, DirtyRead::clear, kIova, stable.size, k4K, words));
    }
  });
  std::vector<std::thread> mappers;
  for (std::uint64_t t = 0; t < 2; ++t) {
    mappers.emplace_back([&, t] {
      const Memory m = rig.machine->memory().allocate(32 * k4K, k4K);
      for (std::uint64_t i = 0; i < 100; ++i) {
        const std::uint64_t iova = kIova + k512M + (2 * i + t) * m.size;
        EXPECT_EQ(rig.map(m, iova), 0);
        EXPECT_EQ(rig.context->table(rig.hwpt)->iova_to_phys(iova).has_value(), true);
        if (i % 2 == 0) {
          EXPECT_EQ(rig.context->ioas_unmap(rig.ioas, iova, m.size).value_or(0), m.size);
        }
      }
    });
  }
  for (std::thread& mapper : mappers) mapper.join();
  stop = true;
  device.join();
  EXPECT_EQ(rig.context->pinned_bytes(), stable.size + 100 * 32 * k4K);
}

}  // namespace
}  // namespace ioplan::sim
