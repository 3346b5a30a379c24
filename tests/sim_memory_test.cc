// The simulated machine's RAM against its promises: scattered pages, bytes by physical address, pins that outlive free.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "backends/sim/physical_memory.h"
#include "engine/base/log2.h"

namespace ioplan::sim {
namespace {

constexpr std::uint64_t kFirstPa = std::uint64_t{1} << 33;
constexpr std::uint64_t k4K = 4096, k64K = 1 << 16, k2M = 1 << 21, k1G = 1 << 30;

std::vector<Extent> extents_of(const PhysicalMemory& memory, const Memory& m, std::uint64_t offset, std::uint64_t length) {
  std::vector<Extent> out;
  memory.extents(m, offset, length, out);
  return out;
}

std::vector<Extent> extents_of(const PhysicalMemory& memory, const Memory& m) { return extents_of(memory, m, 0, m.size); }

// What a CPU does that writes to an offset of an allocation.
void write_at(PhysicalMemory& memory, const Memory& m, std::uint64_t offset, std::span<const std::byte> bytes) {
  for (const Extent& e : extents_of(memory, m, offset, bytes.size())) {
    EXPECT_TRUE(memory.write(e.pa, bytes.first(e.size)));
    bytes = bytes.subspan(e.size);
  }
}

std::vector<std::byte> read_at(const PhysicalMemory& memory, const Memory& m, std::uint64_t offset, std::size_t length) {
  std::vector<std::byte> bytes(length, std::byte{0xee});
  std::size_t done = 0;
  for (const Extent& e : extents_of(memory, m, offset, length)) {
    EXPECT_TRUE(memory.read(e.pa, std::span(bytes).subspan(done, e.size)));
    done += e.size;
  }
  return bytes;
}

TEST(SimMemory, PagesAreScatteredAndEachIsItsOwn) {
  for (std::uint64_t backing : {k4K, k64K, k2M, k1G}) {
    for (std::uint64_t pages : {1U, 2U, 3U, 4U, 5U, 6U, 8U, 31U, 64U, 100U, 513U, 1000U}) {
      PhysicalMemory memory(kFirstPa);
      const Memory m = memory.allocate(pages * backing, backing);
      const std::vector<Extent> extents = extents_of(memory, m);
      ASSERT_EQ(extents.size(), pages) << "neighbours are never contiguous";
      std::vector<std::uint64_t> places;
      for (std::size_t i = 0; i < extents.size(); ++i) {
        EXPECT_EQ(extents[i].size, backing);
        EXPECT_EQ(extents[i].pa % backing, 0U);
        EXPECT_GE(extents[i].pa, kFirstPa);
        EXPECT_TRUE(i == 0 || extents[i].pa != extents[i - 1].pa + backing);
        places.push_back(extents[i].pa);
      }
      std::ranges::sort(places);
      EXPECT_EQ(std::ranges::adjacent_find(places), places.end());
    }
  }
}

TEST(SimMemory, ExtentsOfAnyPartAgreeWithThoseOfThePages) {
  std::mt19937_64 random(7);
  PhysicalMemory memory(kFirstPa);
  for (std::uint64_t backing : {k4K, k64K, k2M}) {
    const Memory m = memory.allocate(37 * backing, backing);
    const std::vector<Extent> pages = extents_of(memory, m);
    for (int round = 0; round < 300; ++round) {
      const std::uint64_t offset = random() % m.size / 2048 * 2048;
      const std::uint64_t length = 1 + random() % (m.size - offset);
      std::uint64_t at = offset;
      for (const Extent& e : extents_of(memory, m, offset, length)) {
        EXPECT_EQ(e.pa, pages[at / backing].pa + at % backing);
        EXPECT_LE(at % backing + e.size, backing);
        at += e.size;
      }
      EXPECT_EQ(at, offset + length);
    }
  }
}

TEST(SimMemory, BytesStayWhereTheyWereWritten) {
  std::mt19937_64 random(11);
  PhysicalMemory memory(kFirstPa);
  struct Shadow {
    Memory m;
    std::vector<std::byte> bytes;
  };
  std::vector<Shadow> all;
  for (std::uint64_t backing : {k4K, k64K}) {
    for (int i = 0; i < 3; ++i) {
      const Memory m = memory.allocate(5 * backing, backing);
      all.push_back({m, std::vector<std::byte>(m.size)});
    }
  }
  for (int round = 0; round < 2000; ++round) {
    Shadow& s = all[random() % all.size()];
    const std::uint64_t offset = random() % s.m.size;
    const std::size_t length = 1 + random() % std::min<std::uint64_t>(s.m.size - offset, 10000);
    if (round % 2 == 0) {
      std::vector<std::byte> bytes(length);
      for (std::byte& b : bytes) b = static_cast<std::byte>(random());
      std::ranges::copy(bytes, s.bytes.begin() + static_cast<std::ptrdiff_t>(offset));
      write_at(memory, s.m, offset, bytes);
    } else {
      const auto seen = read_at(memory, s.m, offset, length);
      ASSERT_TRUE(std::ranges::equal(seen, std::span(s.bytes).subspan(offset, length)));
    }
  }
}

TEST(SimMemory, AddressesThatNobodyHoldsAreNoMemory) {
  PhysicalMemory memory(kFirstPa);
  std::byte byte{};
  EXPECT_FALSE(memory.read(kFirstPa, {&byte, 1}));
  const Memory first = memory.allocate(k4K, k4K);
  const Memory second = memory.allocate(k4K, k4K);
  const std::uint64_t pa = extents_of(memory, first).front().pa;
  EXPECT_EQ(extents_of(memory, second).front().pa, pa + k4K);
  std::vector<std::byte> two_pages(2 * k4K + 1);
  EXPECT_TRUE(memory.write(pa, std::span(two_pages).first(2 * k4K))) << "across two allocations";
  EXPECT_FALSE(memory.write(pa, two_pages)) << "past the last";
  EXPECT_FALSE(memory.read(pa - 1, {&byte, 1}));
}

TEST(SimMemory, LookupsByAddressAndByFile) {
  PhysicalMemory memory(kFirstPa);
  const Memory a = memory.allocate(3 * k4K, k4K);
  const Memory b = memory.allocate(k2M, k2M, false);
  EXPECT_EQ(b.user_va % k2M, 0U);
  EXPECT_NE(a.fd, b.fd);
  EXPECT_FALSE(memory.find_file(b.fd)->writeable);
  EXPECT_EQ(memory.find(a.user_va + k4K + 5, 100)->offset, k4K + 5);
  EXPECT_EQ(memory.find(a.user_va, 3 * k4K)->memory.fd, a.fd);
  EXPECT_FALSE(memory.find(a.user_va, 3 * k4K + 1)) << "an unmapped page ends every allocation";
  EXPECT_FALSE(memory.find(a.user_va - 1, 1));
  EXPECT_FALSE(memory.find(0, 1));
  EXPECT_FALSE(memory.find_file(1000));
  memory.free(a);
  EXPECT_FALSE(memory.find(a.user_va, 1));
  EXPECT_FALSE(memory.find_file(a.fd));
  memory.free(a);  // twice: nothing happens
}

TEST(SimMemory, PinnedMemoryOutlivesFree) {
  PhysicalMemory memory(kFirstPa);
  const Memory m = memory.allocate(2 * k4K, k4K);
  const std::uint64_t pa = extents_of(memory, m).front().pa;
  const std::byte mark{42};
  ASSERT_TRUE(memory.write(pa, {&mark, 1}));
  memory.pin(m);
  memory.free(m);
  EXPECT_FALSE(memory.find(m.user_va, 1));
  std::byte seen{};
  EXPECT_TRUE(memory.read(pa, {&seen, 1}));
  EXPECT_EQ(seen, mark);
  const Memory other = memory.allocate(2 * k4K, k4K);
  EXPECT_NE(extents_of(memory, other).front().pa, pa) << "its pages are taken";
  memory.free(other);
  memory.unpin(m);
  EXPECT_FALSE(memory.read(pa, {&seen, 1}));
  const Memory again = memory.allocate(2 * k4K, k4K);
  EXPECT_EQ(extents_of(memory, again).front().pa, pa) << "free pages are used again";
  EXPECT_TRUE(memory.read(pa, {&seen, 1}));
  EXPECT_EQ(seen, std::byte{0}) << "and hold nothing of what was there";
}

TEST(SimMemory, EqualCallsGiveEqualAddresses) {
  PhysicalMemory one(kFirstPa), two(kFirstPa);
  for (std::uint64_t backing : {k4K, k2M, k64K}) {
    const Memory a = one.allocate(9 * backing, backing), b = two.allocate(9 * backing, backing);
    EXPECT_EQ(a.user_va, b.user_va);
    EXPECT_EQ(a.fd, b.fd);
    const auto in_one = extents_of(one, a), in_two = extents_of(two, b);
    EXPECT_TRUE(std::ranges::equal(in_one, in_two, [](const Extent& x, const Extent& y) { return x.pa == y.pa; }));
  }
}

// A kernel of 64 KiB pages hands out nothing smaller, whatever the backing says.
TEST(SimMemory, NoPageIsSmallerThanTheKernels) {
  PhysicalMemory memory(kFirstPa, k64K);
  const Memory m = memory.allocate(20 * k4K, k4K);
  const auto extents = extents_of(memory, m);
  ASSERT_EQ(extents.size(), 2U);
  EXPECT_EQ(extents[0].size, k64K);
  EXPECT_EQ(extents[0].pa % k64K, 0U);
  EXPECT_EQ(extents[1].size, 4 * k4K);
}

TEST(SimMemory, TerabytesCostNothing) {
  PhysicalMemory memory(kFirstPa);
  const Memory m = memory.allocate(std::uint64_t{4} << 40, k1G);
  const auto extents = extents_of(memory, m);
  EXPECT_EQ(extents.size(), 4096U);
  const std::byte mark{1};
  EXPECT_TRUE(memory.write(extents.back().pa + k1G - 1, {&mark, 1}));
}

TEST(SimMemory, ThreadsSeeTheirOwnBytes) {
  PhysicalMemory memory(kFirstPa);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&memory, t] {
      const std::vector<std::byte> pattern(3000, static_cast<std::byte>(t + 1));
      for (int round = 0; round < 200; ++round) {
        const Memory m = memory.allocate(8 * k4K, k4K);
        write_at(memory, m, 2000, pattern);
        EXPECT_EQ(read_at(memory, m, 2000, pattern.size()), pattern);
        memory.free(m);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ioplan::sim
