// The hardware walker against tables written by hand: every bit below is a number from a figure of the format's
// specification, none comes from the code that maps. For each format: a translation through every level, the large
// pages, permissions, reserved bits, accessed and dirty bits.
#include "backends/sim/walker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "backends/sim/table_arena.h"
#include "engine/base/log2.h"

namespace ioplan::sim {
namespace {

constexpr std::uint64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024;
constexpr std::uint64_t kSmall = 0x7'654'3000;  // a page for leaves to point to
constexpr std::uint64_t kLarge = 0x7'4000'0000;

// A little memory with tables in it.
class HandMade : public testing::Test {
 protected:
  std::uint64_t table(unsigned size_lg2 = 12) { return arena_.allocate(size_lg2); }

  std::uint64_t& entry(std::uint64_t table, std::uint64_t index) {
    return *reinterpret_cast<std::uint64_t*>(arena_.at(table + 8 * index));
  }

  void fill(std::uint64_t table, std::uint64_t entries, std::uint64_t value) {
    for (std::uint64_t i = 0; i < entries; ++i) entry(table, i) = value;
  }

  Translation read(std::uint64_t iova) { return walk(arena_, shape_, root_, iova, DmaAccess::read); }
  Translation write(std::uint64_t iova) { return walk(arena_, shape_, root_, iova, DmaAccess::write); }
  Translation look(std::uint64_t iova) { return probe(arena_, shape_, root_, iova); }

  void expect_page(std::uint64_t iova, std::uint64_t pa, std::uint64_t size, unsigned protection) {
    const Translation t = look(iova);
    EXPECT_EQ(t.fault, "") << std::hex << iova;
    EXPECT_EQ(t.pa, pa);
    EXPECT_EQ(t.page_size, size);
    EXPECT_EQ(t.protection, protection);
  }

  void expect_fault(const Translation& t, std::string_view why, unsigned level) {
    EXPECT_EQ(t.fault, why);
    EXPECT_EQ(t.fault_level, level);
  }

  TableArena arena_{64 * kMiB};
  PageTableShape shape_;
  TableRoot root_;
};

constexpr std::string_view kNothing = "nothing is mapped";
constexpr std::string_view kReserved = "a reserved bit is set";
constexpr std::string_view kReservedKind = "an entry of a reserved kind";
constexpr std::string_view kMisaligned = "a page address that is not aligned to the page";
constexpr std::string_view kTooWide = "an address wider than the output";
constexpr std::string_view kOutside = "the address is outside the table";
constexpr std::string_view kNoWrite = "write to a page that is not writeable";
constexpr std::string_view kNoRead = "read of a page that is not readable";

// ------------------------------------------------------------------------------------------------ VT-d second stage

class VtdSecondStage : public HandMade {
 protected:
  // Four levels; index 1, 2, 3, 4 from the top: 0x80'8060'4000. R and W in every table.
  VtdSecondStage() {
    shape_ = {.format = PageTableFormat::vtd_ss, .levels = 4, .address_bits = 48, .page_sizes = 0x40201000};
    root_ = {table(), 4};
    pdpt_ = table();
    pd_ = table();
    pt_ = table();
    entry(root_.pa, 1) = pdpt_ | 3;
    entry(pdpt_, 2) = pd_ | 3;
    entry(pd_, 3) = pt_ | 3;
    entry(pt_, 4) = kSmall | 3;
  }

  static constexpr std::uint64_t kIova = (std::uint64_t{1} << 39) + 2 * kGiB + 3 * 2 * kMiB + 4 * 4 * kKiB;
  std::uint64_t pdpt_ = 0, pd_ = 0, pt_ = 0;
};

TEST_F(VtdSecondStage, EveryLevel) {
  expect_page(kIova, kSmall, 4 * kKiB, kRead | kWrite);
  expect_page(kIova + 0xabc, kSmall + 0xabc, 4 * kKiB, kRead | kWrite);
  EXPECT_EQ(read(kIova).fault, "");
  EXPECT_EQ(write(kIova).fault, "");
  entry(pt_, 4) |= 1 << 11;  // SNP
  expect_page(kIova, kSmall, 4 * kKiB, kRead | kWrite | kCache);
  expect_fault(look(kIova + 4 * kKiB), kNothing, 1);
  expect_fault(look(kIova + 2 * kMiB), kNothing, 2);
  expect_fault(look(kIova + kGiB), kNothing, 3);
  expect_fault(look(0), kNothing, 4);
  expect_fault(look(pow2(48)), kOutside, 4);
}

TEST_F(VtdSecondStage, LargePages) {
  entry(pd_, 5) = kLarge | 0x83;  // PS
  expect_page(kIova + 2 * 2 * kMiB, kLarge + 0x4000, 2 * kMiB, kRead | kWrite);
  entry(pdpt_, 6) = kLarge | 0x83;
  expect_page(kIova + 4 * kGiB, kLarge + 0x604000, kGiB, kRead | kWrite);
  entry(pd_, 5) |= 0x1000;  // 20:12 are reserved in a 2 MiB page
  expect_fault(look(kIova + 2 * 2 * kMiB), kMisaligned, 2);
  entry(pdpt_, 6) |= 0x20000000;  // 29:12 in a 1 GiB page
  expect_fault(look(kIova + 4 * kGiB), kMisaligned, 3);
  entry(root_.pa, 1) |= 0x80;  // no 512 GiB pages
  expect_fault(look(kIova), kReserved, 4);
}

TEST_F(VtdSecondStage, Permissions) {
  entry(pt_, 4) = kSmall | 1;
  EXPECT_EQ(read(kIova).protection, kRead);
  expect_fault(write(kIova), kNoWrite, 1);
  entry(pt_, 4) = kSmall | 2;
  EXPECT_EQ(write(kIova).protection, kWrite);
  expect_fault(read(kIova), kNoRead, 1);
  entry(pt_, 4) = kSmall | 3;
  entry(pd_, 3) = pt_ | 1;  // a table's permissions hold for all below it
  expect_fault(write(kIova), kNoWrite, 1);
  EXPECT_EQ(read(kIova).fault, "");
  entry(pd_, 3) = pt_;  // neither R nor W: not present
  expect_fault(read(kIova), kNothing, 2);
}

TEST_F(VtdSecondStage, ReservedBits) {
  entry(pt_, 4) = kSmall | 3 | pow2(62);
  expect_fault(read(kIova), kReserved, 1);
  entry(pt_, 4) = kSmall | 3 | pow2(63) | pow2(52) | pow2(61) | 1 << 10 | 0x7c;  // all ignored
  expect_page(kIova, kSmall, 4 * kKiB, kRead | kWrite);
  entry(pd_, 3) |= 1 << 11;  // SNP in a table
  expect_fault(read(kIova), kReserved, 2);
  entry(pd_, 3) = pt_ | 3;
  shape_.output_bits = 39;
  entry(pt_, 4) = kSmall | 3 | pow2(39);
  expect_fault(read(kIova), kReserved, 1);
}

TEST_F(VtdSecondStage, AccessedAndDirtyOnlyWhenTurnedOn) {
  EXPECT_FALSE(write(kIova).dirty);
  EXPECT_EQ(entry(pt_, 4), kSmall | 3);
  shape_.dirty_tracking = true;  // SSADE
  EXPECT_FALSE(look(kIova).dirty);
  EXPECT_EQ(entry(pt_, 4), kSmall | 3);
  EXPECT_FALSE(read(kIova).dirty);
  EXPECT_EQ(entry(pt_, 4), kSmall | 3 | 1 << 8);
  EXPECT_EQ(entry(pd_, 3), pt_ | 3 | 1 << 8);
  EXPECT_TRUE(write(kIova).dirty);
  EXPECT_EQ(entry(pt_, 4), kSmall | 3 | 1 << 8 | 1 << 9);
  EXPECT_EQ(entry(pd_, 3), pt_ | 3 | 1 << 8);
  EXPECT_TRUE(look(kIova).dirty);
}

TEST_F(VtdSecondStage, AFaultSetsNoDirtyBit) {
  shape_.dirty_tracking = true;
  entry(pt_, 4) = kSmall | 1;
  expect_fault(write(kIova), kNoWrite, 1);
  EXPECT_EQ(entry(pt_, 4), kSmall | 1);
}

TEST_F(VtdSecondStage, ThreeAndFiveLevels) {
  root_ = {pdpt_, 3};
  shape_.address_bits = 39;
  expect_page(kIova - pow2(39), kSmall, 4 * kKiB, kRead | kWrite);
  expect_fault(look(kIova), kOutside, 3);
  const std::uint64_t top = table();
  entry(top, 511) = pdpt_ | 3;
  entry(pdpt_, 1) = table() | 3;
  root_ = {top, 5};
  shape_.address_bits = 57;
  expect_fault(look(pow2(57) - 1), kNothing, 4);
  expect_fault(look(pow2(57)), kOutside, 5);
}

// A write must not lose what another agent does to the entry meanwhile: here, a bit that hardware ignores.
TEST_F(VtdSecondStage, DirtyIsSetInOneExchange) {
  shape_.dirty_tracking = true;
  constexpr int kRounds = 20000;
  std::atomic_ref<std::uint64_t> slot(entry(pt_, 4));
  std::thread device([&] {
    for (int i = 0; i < kRounds; ++i) write(kIova);
  });
  for (int i = 0; i < kRounds; ++i) {
    slot.fetch_or(pow2(52));
    slot.fetch_and(~(pow2(52) | pow2(9)));
  }
  device.join();
  EXPECT_EQ(slot.load() & ~(pow2(8) | pow2(9)), kSmall | 3);
}

// ---------------------------------------------------------------------------------------------- x86-64 first stage

class X86FirstStage : public HandMade {
 protected:
  X86FirstStage() {
    shape_ = {.format = PageTableFormat::x86_64, .stage = 1, .levels = 4, .address_bits = 48, .page_sizes = 0x40201000};
    root_ = {table(), 4};
    pdpt_ = table();
    pd_ = table();
    pt_ = table();
    entry(root_.pa, 255) = pdpt_ | 7;  // P, R/W, U/S
    entry(pdpt_, 511) = pd_ | 7;
    entry(pd_, 511) = pt_ | 7;
    entry(pt_, 511) = kSmall | 7;
  }

  static constexpr std::uint64_t kIova = 0x7fff'ffff'f000;
  std::uint64_t pdpt_ = 0, pd_ = 0, pt_ = 0;
};

TEST_F(X86FirstStage, EveryLevel) {
  expect_page(kIova + 1, kSmall + 1, 4 * kKiB, kRead | kWrite);
  expect_fault(look(kIova - 0x1000), kNothing, 1);
  entry(pt_, 511) &= ~std::uint64_t{1};
  expect_fault(look(kIova), kNothing, 1);
}

TEST_F(X86FirstStage, OnlyCanonicalAddresses) {
  expect_fault(look(pow2(47)), kOutside, 4);
  expect_fault(look(pow2(63)), kOutside, 4);
  entry(root_.pa, 511) = pdpt_ | 7;
  expect_page(~std::uint64_t{0}, kSmall + 0xfff, 4 * kKiB, kRead | kWrite);
  const std::uint64_t top = table();
  entry(top, 255) = root_.pa | 7;
  root_ = {top, 5};
  expect_page(pow2(56) - 1, kSmall + 0xfff, 4 * kKiB, kRead | kWrite);
  expect_fault(look(pow2(56)), kOutside, 5);
}

TEST_F(X86FirstStage, Permissions) {
  entry(pdpt_, 511) = pd_ | 5;  // no R/W
  EXPECT_EQ(read(kIova).fault, "");
  expect_fault(write(kIova), kNoWrite, 1);
  entry(pdpt_, 511) = pd_ | 3;  // no U/S: DMA is a user's
  expect_fault(read(kIova), kNoRead, 1);
}

TEST_F(X86FirstStage, LargePagesAndReservedBits) {
  entry(pd_, 1) = kLarge | 0x87;
  expect_page(kIova - 510 * 2 * kMiB, kLarge + 0x1ff000, 2 * kMiB, kRead | kWrite);
  entry(pd_, 1) |= 0x1000;  // PAT, not an address bit
  expect_page(kIova - 510 * 2 * kMiB, kLarge + 0x1ff000, 2 * kMiB, kRead | kWrite);
  entry(pd_, 1) |= 0x2000;
  expect_fault(look(kIova - 510 * 2 * kMiB), kMisaligned, 2);
  entry(root_.pa, 255) |= 0x80;
  expect_fault(look(kIova), kReserved, 4);
  entry(root_.pa, 255) &= ~std::uint64_t{0x80};
  shape_.output_bits = 46;
  entry(pt_, 511) |= pow2(46);
  expect_fault(look(kIova), kReserved, 1);
}

TEST_F(X86FirstStage, AccessedAndDirtyAreAlwaysSet) {
  read(kIova);
  EXPECT_EQ(entry(pt_, 511), kSmall | 7 | 0x20);
  EXPECT_EQ(entry(root_.pa, 255), pdpt_ | 7 | 0x20);
  EXPECT_TRUE(write(kIova).dirty);
  EXPECT_EQ(entry(pt_, 511), kSmall | 7 | 0x60);
  EXPECT_EQ(entry(pd_, 511), pt_ | 7 | 0x20);
}

// ----------------------------------------------------------------------------------------------------- AMD v1, mock

constexpr std::uint64_t kIr = pow2(61), kIw = pow2(62), kFc = pow2(60), kPr = 1;

class AmdV1 : public HandMade {
 protected:
  AmdV1() {
    shape_ = {.format = PageTableFormat::amdv1, .levels = 3, .address_bits = 64, .page_sizes = ~std::uint64_t{0xfff}};
    root_ = {table(), 3};
    two_ = table();
    one_ = table();
    entry(root_.pa, 1) = next(two_, 2);
    entry(two_, 2) = next(one_, 1);
    entry(one_, 3) = kSmall | kPr | kIr | kIw;
  }

  static std::uint64_t next(std::uint64_t pa, std::uint64_t level) { return pa | kPr | level << 9 | kIr | kIw; }

  static constexpr std::uint64_t kIova = kGiB + 2 * 2 * kMiB + 3 * 4 * kKiB;
  std::uint64_t two_ = 0, one_ = 0;
};

TEST_F(AmdV1, EveryLevel) {
  expect_page(kIova + 7, kSmall + 7, 4 * kKiB, kRead | kWrite);
  entry(one_, 3) |= kFc;
  expect_page(kIova, kSmall, 4 * kKiB, kRead | kWrite | kCache);
  expect_fault(look(kIova + 0x1000), kNothing, 1);
  expect_fault(look(pow2(39)), kOutside, 3);
}

TEST_F(AmdV1, NextLevel0IsThePageOfTheLevel) {
  entry(two_, 5) = kLarge | kPr | kIr;
  expect_page(kIova + 3 * 2 * kMiB, kLarge + 0x3000, 2 * kMiB, kRead);
  entry(root_.pa, 4) = kLarge | kPr | kIr | kIw;
  expect_page(4 * kGiB + 5, kLarge + 5, kGiB, kRead | kWrite);
  entry(root_.pa, 4) |= 0x200000;
  expect_fault(look(4 * kGiB), kMisaligned, 3);
}

TEST_F(AmdV1, NextLevel7HoldsTheSizeInTheAddress) {
  // 32 KiB: bits 13:12 are 1, bit 14 is 0.
  for (unsigned i = 8; i < 16; ++i) entry(one_, i) = 0x700'0000 | 0x3000 | kPr | 7 << 9 | kIr | kIw;
  expect_page(kGiB + 2 * 2 * kMiB + 9 * 4 * kKiB + 1, 0x700'1001, 32 * kKiB, kRead | kWrite);
  // 8 KiB: bit 12 is 0.
  entry(one_, 20) = entry(one_, 21) = 0x700'2000 | kPr | 7 << 9 | kIr;
  expect_page(kGiB + 2 * 2 * kMiB + 21 * 4 * kKiB, 0x700'3000, 8 * kKiB, kRead);
  // 1 MiB, the largest in a table of 4 KiB pages; 4 MiB, the smallest in the next.
  for (unsigned i = 256; i < 512; ++i) entry(one_, i) = 0x710'0000 | 0x7f000 | kPr | 7 << 9 | kIr;
  expect_page(kGiB + 2 * 2 * kMiB + 511 * 4 * kKiB, 0x71f'f000, kMiB, kRead);
  entry(two_, 6) = entry(two_, 7) = 0x80'0000 | 0x1f'f000 | kPr | 7 << 9 | kIr;
  expect_page(kGiB + 7 * 2 * kMiB + 3, 0xa0'0003, 4 * kMiB, kRead);
  // A size that belongs to another level.
  entry(one_, 0) = entry(two_, 6);
  expect_fault(look(kGiB + 2 * 2 * kMiB), kReservedKind, 1);
  entry(two_, 9) = 0x3000 | kPr | 7 << 9 | kIr;
  expect_fault(look(kGiB + 9 * 2 * kMiB), kReservedKind, 2);
}

TEST_F(AmdV1, SkippedLevels) {
  entry(root_.pa, 8) = next(one_, 1);  // level 2 is skipped: address bits 29:21 must be 0
  expect_page(8 * kGiB + 3 * 4 * kKiB, kSmall, 4 * kKiB, kRead | kWrite);
  expect_fault(look(8 * kGiB + 2 * kMiB), "an address that a skipped level does not reach", 3);
  entry(root_.pa, 8) = next(one_, 3);  // not downwards
  expect_fault(look(8 * kGiB), kReservedKind, 3);
}

TEST_F(AmdV1, ReservedBits) {
  entry(one_, 3) |= pow2(52);
  expect_fault(look(kIova), kReserved, 1);
  entry(one_, 3) = kSmall | kPr | kIr | kIw | pow2(63) | 0x19e;  // 63, 8:7, 4:1 ignored
  expect_page(kIova, kSmall, 4 * kKiB, kRead | kWrite);
  entry(two_, 2) |= kFc;  // pages only
  expect_fault(look(kIova), kReserved, 2);
}

TEST_F(AmdV1, PermissionsAreAndedDownTheTree) {
  entry(root_.pa, 1) &= ~kIw;
  EXPECT_EQ(read(kIova).protection, kRead);
  expect_fault(write(kIova), kNoWrite, 1);
  entry(root_.pa, 1) &= ~kIr;
  expect_fault(read(kIova), kNoRead, 1);
}

TEST_F(AmdV1, DirtyOfAnyEntryIsDirtyOfThePage) {
  shape_.dirty_tracking = true;
  for (unsigned i = 8; i < 16; ++i) entry(one_, i) = 0x700'0000 | 0x3000 | kPr | 7 << 9 | kIr | kIw;
  const std::uint64_t page = kGiB + 2 * 2 * kMiB + 8 * 4 * kKiB;
  EXPECT_FALSE(look(page).dirty);
  EXPECT_FALSE(read(page).dirty);
  EXPECT_EQ(entry(one_, 8) & 0x60, 0x20U);
  EXPECT_TRUE(write(page + 5 * 4 * kKiB).dirty);
  EXPECT_EQ(entry(one_, 13) & 0x60, 0x60U);
  EXPECT_EQ(entry(one_, 12) & 0x60, 0U);
  EXPECT_TRUE(look(page).dirty);
  EXPECT_TRUE(read(page + 7 * 4 * kKiB).dirty);
  EXPECT_FALSE(look(kIova).dirty);
}

TEST_F(AmdV1, SixLevels) {
  const std::uint64_t six = table(), five = table(), four = table();
  entry(six, 127) = next(five, 5);
  entry(five, 511) = next(four, 4);
  entry(four, 511) = next(root_.pa, 3);
  root_ = {six, 6};
  expect_page(~std::uint64_t{0} << 39 | kIova, kSmall, 4 * kKiB, kRead | kWrite);
  entry(six, 126) = kPr | kIr | kIw;  // the top has no pages
  expect_fault(look(std::uint64_t{126} << 57), kReservedKind, 6);
}

TEST_F(AmdV1, MockHasUnitsOfTwoKiB) {
  shape_.format = PageTableFormat::mock;
  const std::uint64_t root = table(), two = table(), one = table();
  const auto stored = [](std::uint64_t pa) { return (pa >> 11) << 12; };
  entry(root, 1) = next(stored(two), 2);
  entry(two, 2) = next(stored(one), 1);
  entry(one, 3) = stored(0x7'654'3800) | kPr | kIr | kIw;
  root_ = {root, 3};
  const std::uint64_t first = pow2(29) + 2 * kMiB;
  expect_page(first + 3 * 2 * kKiB + 5, 0x7'654'3805, 2 * kKiB, kRead | kWrite);
  entry(one, 4) = entry(one, 5) = stored(0x7'000'0000) | kPr | 7 << 9 | kIr;
  expect_page(first + 5 * 2 * kKiB, 0x7'000'0800, 4 * kKiB, kRead);
  entry(two, 3) = stored(0x7'000'0000) | kPr | kIr;
  expect_page(first + kMiB + 1, 0x7'000'0001, kMiB, kRead);
}

// ------------------------------------------------------------------------------------------------------ Arm VMSAv8-64

constexpr std::uint64_t kAf = 1 << 10, kDbm = pow2(51), kContiguous = pow2(52);
constexpr std::uint64_t kUnprivileged = 1 << 6, kReadOnly = 1 << 7;
constexpr std::uint64_t kS2Read = 1 << 6, kS2Write = 1 << 7;

class Arm : public HandMade {
 protected:
  void stage1(std::uint64_t page_sizes, unsigned levels, unsigned address_bits, unsigned output_bits) {
    shape_ = {.format = PageTableFormat::arm_lpae,
              .stage = 1,
              .levels = levels,
              .address_bits = address_bits,
              .page_sizes = page_sizes,
              .output_bits = output_bits};
  }

  void stage2(std::uint64_t page_sizes, unsigned levels, unsigned address_bits, unsigned output_bits) {
    stage1(page_sizes, levels, address_bits, output_bits);
    shape_.stage = 2;
  }

  static constexpr std::uint64_t kPage = kAf | kUnprivileged | 3;
};

TEST_F(Arm, Stage1Of4KiB) {
  stage1(0x40201000, 4, 48, 48);
  const std::uint64_t l0 = table(), l1 = table(), l2 = table(), l3 = table();
  root_ = {l0, 4};
  entry(l0, 1) = l1 | 3;
  entry(l1, 2) = l2 | 3;
  entry(l2, 3) = l3 | 3;
  entry(l3, 4) = kSmall | kPage | 1 << 2;  // AttrIndx 1: write-back
  const std::uint64_t iova = pow2(39) + 2 * kGiB + 3 * 2 * kMiB + 4 * 4 * kKiB;
  expect_page(iova, kSmall, 4 * kKiB, kRead | kWrite | kCache);
  expect_fault(look(pow2(48)), kOutside, 4);

  entry(l3, 4) = kSmall | kPage | kReadOnly;
  EXPECT_EQ(read(iova).protection, kRead);
  expect_fault(write(iova), kNoWrite, 1);
  entry(l3, 4) = kSmall | kAf | 3;  // AP[1] clear: privileged only
  expect_fault(read(iova), kNoRead, 1);
  entry(l3, 4) = kSmall | kPage;
  entry(l1, 2) = l2 | 3 | pow2(62);  // APTable: no writes below
  expect_fault(write(iova), kNoWrite, 1);
  entry(l1, 2) = l2 | 3 | pow2(61);  // APTable: no unprivileged accesses below
  expect_fault(read(iova), kNoRead, 1);
  entry(l1, 2) = l2 | 3;

  entry(l3, 4) = kSmall | kUnprivileged | 3;
  expect_fault(read(iova), "the access flag is clear", 1);
  entry(l3, 4) = kSmall | (kPage & ~std::uint64_t{2});  // 0b01 at the last level
  expect_fault(read(iova), kReservedKind, 1);
  entry(l3, 4) = kSmall | kPage | pow2(48);
  expect_fault(read(iova), kReserved, 1);  // RES0
}

TEST_F(Arm, BlocksOf4KiB) {
  stage1(0x40201000, 3, 39, 48);
  const std::uint64_t l1 = table(), l2 = table();
  root_ = {l1, 3};
  entry(l1, 2) = l2 | 3;
  entry(l2, 3) = kLarge | kAf | kUnprivileged | 1;
  expect_page(2 * kGiB + 3 * 2 * kMiB + 9, kLarge + 9, 2 * kMiB, kRead | kWrite);
  entry(l1, 4) = kLarge | kAf | kUnprivileged | 1;
  expect_page(4 * kGiB + 9, kLarge + 9, kGiB, kRead | kWrite);
  entry(l2, 3) |= 0x1000;
  expect_fault(look(2 * kGiB + 3 * 2 * kMiB), kReserved, 2);
  entry(l1, 4) |= 0x200000;
  expect_fault(look(4 * kGiB), kReserved, 3);
  const std::uint64_t l0 = table();
  root_ = {l0, 4};
  shape_.address_bits = 48;
  entry(l0, 0) = kAf | kUnprivileged | 1;  // no blocks at lookup level 0
  expect_fault(look(0), kReservedKind, 4);
}

TEST_F(Arm, ContiguousEntriesAreOneRun) {
  stage1(0x40201000 | 64 * kKiB | 32 * kMiB, 3, 39, 48);
  shape_.dirty_tracking = true;
  const std::uint64_t l1 = table(), l2 = table(), l3 = table();
  root_ = {l1, 3};
  entry(l1, 0) = l2 | 3;
  entry(l2, 0) = l3 | 3;
  const std::uint64_t clean = kPage | kReadOnly | kDbm | kContiguous;
  for (unsigned i = 0; i < 16; ++i) entry(l3, 16 + i) = (0x70'0000 + i * 0x1000) | clean;
  expect_page(64 * kKiB + 0x5123, 0x70'5123, 64 * kKiB, kRead | kWrite);
  EXPECT_FALSE(look(64 * kKiB).dirty);
  EXPECT_TRUE(write(64 * kKiB + 0x3000).dirty);
  EXPECT_TRUE(look(64 * kKiB + 0xf000).dirty);
  EXPECT_EQ(entry(l3, 18) & kReadOnly, kReadOnly);
  entry(l3, 20) += 0x1000;
  expect_fault(look(64 * kKiB + 0x4000), "a contiguous entry out of its place", 1);
  for (unsigned i = 0; i < 16; ++i) entry(l2, 32 + i) = (kLarge + i * 2 * kMiB) | (clean & ~std::uint64_t{2});
  expect_page(64 * kMiB + 5 * kMiB, kLarge + 5 * kMiB, 32 * kMiB, kRead | kWrite);
}

TEST_F(Arm, DirtyStateOfStage1) {
  stage1(0x40201000, 3, 39, 48);
  const std::uint64_t l1 = table();
  root_ = {l1, 3};
  const std::uint64_t clean = kLarge | kUnprivileged | kReadOnly | kDbm | 1;  // AF clear too: hardware sets it
  entry(l1, 0) = clean | kAf;
  expect_fault(write(0), kNoWrite, 3);  // no hardware update of dirty state
  shape_.dirty_tracking = true;
  entry(l1, 0) = clean;
  EXPECT_FALSE(read(0).dirty);
  EXPECT_EQ(entry(l1, 0), clean | kAf);
  EXPECT_TRUE(write(0).dirty);
  EXPECT_EQ(entry(l1, 0), (clean | kAf) & ~kReadOnly);
  entry(l1, 0) = kLarge | kAf | kUnprivileged | kReadOnly | 1;  // no DBM: read-only for good
  expect_fault(write(0), kNoWrite, 3);
}

TEST_F(Arm, Stage2) {
  stage2(0x40201000, 3, 39, 44);
  shape_.dirty_tracking = true;
  const std::uint64_t l1 = table(), l2 = table(), l3 = table();
  root_ = {l1, 3};
  entry(l1, 1) = l2 | 3 | pow2(62) | pow2(61);  // stage 2 has no APTable
  entry(l2, 1) = l3 | 3;
  const std::uint64_t iova = kGiB + 2 * kMiB + 4 * kKiB;
  entry(l3, 1) = kSmall | kAf | kS2Read | 0xf << 2 | 3;
  expect_page(iova, kSmall, 4 * kKiB, kRead | kCache);
  expect_fault(write(iova), kNoWrite, 1);
  entry(l3, 1) = kSmall | kAf | kS2Write | 0x5 << 2 | 3;
  expect_page(iova, kSmall, 4 * kKiB, kWrite);
  expect_fault(read(iova), kNoRead, 1);
  entry(l3, 1) = kSmall | kAf | kS2Read | kDbm | 3;
  EXPECT_FALSE(look(iova).dirty);
  EXPECT_TRUE(write(iova).dirty);
  EXPECT_EQ(entry(l3, 1), kSmall | kAf | kS2Read | kS2Write | kDbm | 3);
  entry(l3, 1) = pow2(44) | kAf | kS2Read | 3;
  expect_fault(read(iova), kTooWide, 1);
}

TEST_F(Arm, ConcatenatedRootsOfStage2) {
  stage2(0x40201000, 3, 40, 40);  // 40 bits from lookup level 1: two root tables
  const std::uint64_t roots = table(13);
  root_ = {roots, 3};
  entry(roots, 512) = kLarge | kAf | kS2Read | 1;
  expect_page(512 * kGiB + 3, kLarge + 3, kGiB, kRead);
  entry(roots, 1023) = kLarge | kAf | kS2Read | 1;
  expect_page(pow2(40) - 1, kLarge + kGiB - 1, kGiB, kRead);
  expect_fault(look(pow2(40)), kOutside, 3);
}

TEST_F(Arm, Granule16KiB) {
  stage2(16 * kKiB | 32 * kMiB | 2 * kMiB, 3, 47, 48);
  const std::uint64_t l1 = table(14), l2 = table(14), l3 = table(14);
  root_ = {l1, 3};
  entry(l1, 5) = l2 | 3;
  entry(l2, 6) = l3 | 3;
  entry(l3, 7) = 0x8000 | kAf | kS2Read | 3;
  expect_page(5 * pow2(36) + 6 * 32 * kMiB + 7 * 16 * kKiB + 1, 0x8001, 16 * kKiB, kRead);
  for (unsigned i = 0; i < 128; ++i) entry(l3, 128 + i) = (2 * kMiB + i * 16 * kKiB) | kAf | kS2Read | kContiguous | 3;
  expect_page(5 * pow2(36) + 6 * 32 * kMiB + 3 * kMiB, 3 * kMiB, 2 * kMiB, kRead);
  entry(l2, 8) = 32 * kMiB | kAf | kS2Read | 1;
  expect_page(5 * pow2(36) + 8 * 32 * kMiB + 1, 32 * kMiB + 1, 32 * kMiB, kRead);
  entry(l1, 9) = kAf | kS2Read | 1;  // no 64 GiB blocks
  expect_fault(look(9 * pow2(36)), kReservedKind, 3);
  entry(l3, 7) |= 0x1000;  // 13:12 are RES0
  expect_fault(look(5 * pow2(36) + 6 * 32 * kMiB + 7 * 16 * kKiB), kReserved, 1);
}

TEST_F(Arm, Granule64KiBWith52Bits) {
  stage1(64 * kKiB | 512 * kMiB | pow2(42), 3, 52, 52);
  const std::uint64_t l1 = table(16), l2 = table(16), l3 = table(16);
  root_ = {l1, 3};
  entry(l1, 1023) = l2 | 3;
  entry(l2, 8191) = l3 | 3;
  entry(l3, 8191) = 0x7654'0000 | 0xa << 12 | kPage;  // 15:12 are address bits 51:48
  expect_page(pow2(52) - 1, pow2(48) * 0xa + 0x7654'ffff, 64 * kKiB, kRead | kWrite);
  entry(l2, 0) = kGiB | 0x5 << 12 | kAf | kUnprivileged | 1;
  expect_page(pow2(42) * 1023 + 1, pow2(48) * 5 + kGiB + 1, 512 * kMiB, kRead | kWrite);
  entry(l1, 1) = pow2(42) | 0x1 << 12 | kAf | kUnprivileged | 1;
  expect_page(pow2(42) + 1, pow2(48) + pow2(42) + 1, pow2(42), kRead | kWrite);
  shape_.output_bits = 48;
  expect_fault(look(pow2(52) - 1), kTooWide, 1);
  expect_fault(look(pow2(42)), kReservedKind, 3);  // 4 TiB blocks come with 52-bit addresses
}

// -------------------------------------------------------------------------------------------------------------- RISC-V

class RiscV : public HandMade {
 protected:
  // V R W U A D = 0xd7.
  RiscV() {
    shape_ = {.format = PageTableFormat::riscv, .stage = 1, .levels = 3, .address_bits = 39, .page_sizes = 0x40201000,
              .output_bits = 56};
    root_ = {table(), 3};
    one_ = table();
    zero_ = table();
    entry(root_.pa, 1) = ppn(one_) | 1;
    entry(one_, 2) = ppn(zero_) | 1;
    entry(zero_, 3) = ppn(kSmall) | 0xd7;
  }

  static std::uint64_t ppn(std::uint64_t pa) { return pa >> 12 << 10; }

  static constexpr std::uint64_t kIova = kGiB + 2 * 2 * kMiB + 3 * 4 * kKiB;
  std::uint64_t one_ = 0, zero_ = 0;
};

TEST_F(RiscV, EveryLevel) {
  expect_page(kIova + 1, kSmall + 1, 4 * kKiB, kRead | kWrite | kCache);
  entry(zero_, 3) |= pow2(61);  // PBMT: non-cacheable
  expect_page(kIova, kSmall, 4 * kKiB, kRead | kWrite);
  expect_fault(look(pow2(38)), kOutside, 3);
  expect_fault(look(kIova + 0x1000), kNothing, 1);
}

TEST_F(RiscV, LargePages) {
  entry(one_, 4) = ppn(kLarge) | 0xd7;
  expect_page(kGiB + 8 * kMiB + 1, kLarge + 1, 2 * kMiB, kRead | kWrite | kCache);
  entry(root_.pa, 4) = ppn(kLarge) | 0xd7;
  expect_page(4 * kGiB + 1, kLarge + 1, kGiB, kRead | kWrite | kCache);
  entry(root_.pa, 4) |= 1 << 10;
  expect_fault(look(4 * kGiB), kMisaligned, 3);
  const std::uint64_t five = table(), four = table();
  entry(five, 0) = ppn(four) | 1;
  entry(four, 1) = 0xd7;
  entry(five, 1) = 0xd7;
  root_ = {five, 5};
  expect_page(pow2(39) + 1, 1, pow2(39), kRead | kWrite | kCache);
  expect_page(pow2(48) + 1, 1, pow2(48), kRead | kWrite | kCache);
}

TEST_F(RiscV, Svnapot) {
  for (unsigned i = 16; i < 32; ++i) entry(zero_, i) = pow2(63) | ppn(0x12'0000 | 0x8000) | 0xd7;
  expect_page(kGiB + 4 * kMiB + 0x1a123, 0x12'a123, 64 * kKiB, kRead | kWrite | kCache);
  entry(zero_, 16) = pow2(63) | ppn(0x12'0000 | 0x4000) | 0xd7;  // other sizes are reserved
  expect_fault(look(kGiB + 4 * kMiB + 0x10000), kReservedKind, 1);
  entry(one_, 5) = pow2(63) | ppn(0x8000) | 0xd7;
  expect_fault(look(kGiB + 10 * kMiB), kReservedKind, 2);
}

TEST_F(RiscV, PermissionsAndReservedBits) {
  entry(zero_, 3) = ppn(kSmall) | 0x53;  // V R U A
  EXPECT_EQ(read(kIova).protection, kRead | kCache);
  expect_fault(write(kIova), kNoWrite, 1);
  entry(zero_, 3) = ppn(kSmall) | 0xd5;  // W without R
  expect_fault(read(kIova), kReservedKind, 1);
  entry(zero_, 3) = ppn(kSmall) | 0xc7;  // no U
  expect_fault(read(kIova), kNoRead, 1);
  entry(zero_, 3) = ppn(kSmall) | 0xd7 | pow2(54);
  expect_fault(read(kIova), kReserved, 1);
  entry(zero_, 3) = ppn(kSmall) | 1;  // a table below the last level
  expect_fault(read(kIova), kReservedKind, 1);
  entry(one_, 2) |= 0x40;  // A of a table
  expect_fault(read(kIova), kReserved, 2);
}

TEST_F(RiscV, AccessedAndDirty) {
  entry(zero_, 3) = ppn(kSmall) | 0x17;  // V R W U
  expect_fault(read(kIova), "the accessed bit is clear", 1);
  entry(zero_, 3) |= 0x40;
  EXPECT_EQ(read(kIova).fault, "");
  expect_fault(write(kIova), kNoWrite, 1);  // D is clear, and hardware does not set it
  shape_.dirty_tracking = true;             // SADE
  entry(zero_, 3) = ppn(kSmall) | 0x17;
  EXPECT_FALSE(read(kIova).dirty);
  EXPECT_EQ(entry(zero_, 3), ppn(kSmall) | 0x57);
  EXPECT_TRUE(write(kIova).dirty);
  EXPECT_EQ(entry(zero_, 3), ppn(kSmall) | 0xd7);
}

// ---------------------------------------------------------------------------------------------------------------- s390

class S390 : public HandMade {
 protected:
  static constexpr std::uint64_t kInvalid = 0x20, kInvalidPage = 0x400, kProtected = 0x200;

  // A region third table (TT 1, length 3), a segment table, a page table.
  S390() {
    shape_ = {.format = PageTableFormat::s390, .stage = 1, .levels = 3, .address_bits = 42, .page_sizes = 0x1000,
              .output_bits = 64};
    root_ = {table(14), 3};
    segments_ = table(14);
    pages_ = table(11);
    fill(root_.pa, 2048, kInvalid);
    fill(segments_, 2048, kInvalid);
    fill(pages_, 256, kInvalidPage);
    entry(root_.pa, 2047) = segments_ | 1 << 2 | 3;
    entry(segments_, 2047) = pages_;
    entry(pages_, 255) = kSmall;
  }

  static constexpr std::uint64_t kIova = (std::uint64_t{1} << 42) - 0x1000;
  std::uint64_t segments_ = 0, pages_ = 0;
};

TEST_F(S390, EveryLevel) {
  expect_page(kIova + 1, kSmall + 1, 4 * kKiB, kRead | kWrite | kCache);
  expect_fault(look(kIova - 0x1000), kNothing, 1);
  expect_fault(look(kIova - kMiB), kNothing, 2);
  expect_fault(look(kIova - 2 * kGiB), kNothing, 3);
  expect_fault(look(kIova + 0x1000), kOutside, 3);
}

TEST_F(S390, Protection) {
  entry(pages_, 255) |= kProtected;
  EXPECT_EQ(read(kIova).protection, kRead | kCache);
  expect_fault(write(kIova), kNoWrite, 1);
  entry(pages_, 255) = kSmall;
  entry(segments_, 2047) |= kProtected;
  expect_fault(write(kIova), kNoWrite, 1);
}

TEST_F(S390, TypesAndLengths) {
  entry(pages_, 255) |= 0x800;
  expect_fault(read(kIova), kReserved, 1);
  entry(pages_, 255) = kSmall;
  entry(segments_, 2047) |= 1 << 2;
  expect_fault(read(kIova), "an entry of another kind of table", 2);
  entry(segments_, 2047) = pages_;
  entry(root_.pa, 2047) = segments_ | 1 << 2 | 2;  // the segment table has three quarters
  expect_fault(read(kIova), "an address that the next table is too short for", 3);
  entry(root_.pa, 2047) = segments_ | 1 << 6 | 1 << 2 | 3;  // ... lacks the first
  EXPECT_EQ(read(kIova).fault, "");
  expect_fault(read(kIova - 2047 * kMiB), "an address that the next table is too short for", 3);
}

TEST_F(S390, RegionFirstToLast) {
  const std::uint64_t first = table(14), second = table(14);
  fill(first, 2048, kInvalid);
  fill(second, 2048, kInvalid);
  entry(first, 2047) = second | 3 << 2 | 3;
  entry(second, 2047) = root_.pa | 2 << 2 | 3;
  root_ = {first, 5};
  expect_page(~std::uint64_t{0}, kSmall + 0xfff, 4 * kKiB, kRead | kWrite | kCache);
  root_ = {second, 4};
  expect_page(pow2(53) - 1, kSmall + 0xfff, 4 * kKiB, kRead | kWrite | kCache);
  expect_fault(read(pow2(53)), kOutside, 4);
}

// -------------------------------------------------------------------------------------------------------------- virtio

TEST_F(HandMade, VirtioHasNoTables) {
  shape_ = {.format = PageTableFormat::virtio, .stage = 1, .levels = 0, .address_bits = 64, .page_sizes = 0x1000};
  expect_fault(read(0), "this format has no tables in memory", 0);
}

TEST_F(HandMade, ATableOutsideOfMemoryFaults) {
  shape_ = {.format = PageTableFormat::vtd_ss, .levels = 3, .address_bits = 39, .page_sizes = 0x1000};
  root_ = {table(), 3};
  entry(root_.pa, 0) = pow2(40) | 3;
  expect_fault(read(0), "a table outside of memory", 2);
}

}  // namespace
}  // namespace ioplan::sim
