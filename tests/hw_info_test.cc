// backends/intake/hw_info on a system that keeps books: one device a unit is asked, what it answers becomes a fact with
// its source, what cannot be asked becomes a gap with the reason, and every call may fail without leaving anything open.
#include "backends/intake/hw_info.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tests/support/fake_system.h"

namespace ioplan::intake {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

template <class Layout>
iommufd::HwInfo answer(std::uint32_t type, const Layout& layout) {
  iommufd::HwInfo info;
  info.type = type;
  std::memcpy(info.data.data(), &layout, sizeof(layout));
  return info;
}

iommufd::HwInfo intel(std::uint64_t cap, std::uint64_t ecap) {
  return answer(uapi::IOMMU_HW_INFO_TYPE_INTEL_VTD, uapi::iommu_hw_info_vtd{0, 0, cap, ecap});
}

class HwInfoTest : public testing::Test {
 protected:
  // A device as a scan has found it, and as the system has it.
  void add(const std::string& id, const std::string& unit_id, Driver driver, const iommufd::HwInfo& registers,
           const std::string& bound = "vfio-pci") {
    const std::string name(kDriverNames[static_cast<std::size_t>(driver)]);
    scanned_.state(unit(unit_id, "driver"), name, "scan");
    scanned_.state(device(id, "iommu"), unit_id, "scan");
    if (!bound.empty()) scanned_.state(device(id, "driver"), bound, "scan");
    fake::Device made;
    made.address = id;
    made.group = made.vfio = count_++;
    made.driver = bound;
    made.unit = unit_id;
    made.registers = registers;
    system_.add(made);
  }

  Settled ask() {
    Findings findings = scanned_;
    ask_iommufd(system_, Findings(scanned_).settle().host, findings);
    EXPECT_EQ(system_.open_descriptors(), 0U) << system_.world();
    EXPECT_THAT(system_.violations, IsEmpty());
    return std::move(findings).settle();
  }

  static const Unit& unit_of(const Settled& settled, const std::string& id) {
    return *std::ranges::find(settled.host.units, id, &Unit::id);
  }

  Findings scanned_;
  fake::FakeSystem system_;
  unsigned count_ = 1;
};

TEST_F(HwInfoTest, EachDriverHasItsRegisters) {
  add("0000:01:00.0", "dmar0", Driver::intel, intel(0xd2008c40660462, 0xf050da));
  add("0000:02:00.0", "ivhd0", Driver::amd, answer(uapi::IOMMU_HW_INFO_TYPE_AMD, uapi::iommu_hw_info_amd{0x246577efa2254afa, 0x10}));
  add("0000:03:00.0", "smmu3.0", Driver::smmuv3,
      answer(uapi::IOMMU_HW_INFO_TYPE_ARM_SMMUV3, uapi::iommu_hw_info_arm_smmuv3{0, 0, {1, 2, 3, 4, 5, 6}, 7, 8}));
  const Settled settled = ask();
  const Facts<UnitFact>& vtd = unit_of(settled, "dmar0").facts;
  EXPECT_EQ(vtd[UnitFact::cap], 0xd2008c40660462U);
  EXPECT_EQ(vtd[UnitFact::ecap], 0xf050daU);
  const Facts<UnitFact>& amd = unit_of(settled, "ivhd0").facts;
  EXPECT_EQ(amd[UnitFact::efr], 0x246577efa2254afaU);
  EXPECT_EQ(amd[UnitFact::efr2], 0x10U);
  const Facts<UnitFact>& smmu = unit_of(settled, "smmu3.0").facts;
  EXPECT_EQ(smmu[UnitFact::idr0], 1U);
  EXPECT_EQ(smmu[UnitFact::idr1], 2U);
  EXPECT_EQ(smmu[UnitFact::idr3], 4U);
  EXPECT_EQ(smmu[UnitFact::idr5], 6U);
  EXPECT_THAT(settled.host.sources, Contains(Pair("iommus.dmar0.cap", "GET_HW_INFO of 0000:01:00.0")));
  EXPECT_THAT(settled.host.unknown, IsEmpty());
}

TEST_F(HwInfoTest, AUnitIsAskedOnceAndOnlyByWayOfVfio) {
  add("0000:01:00.0", "dmar0", Driver::intel, intel(1, 2), "e1000e");
  add("0000:01:00.1", "dmar0", Driver::intel, intel(0x10, 0x20));
  add("0000:01:00.2", "dmar0", Driver::intel, intel(0x30, 0x40));
  EXPECT_EQ(unit_of(ask(), "dmar0").facts[UnitFact::cap], 0x10U);
  EXPECT_EQ(std::ranges::count(system_.calls, "IOMMU_GET_HW_INFO"), 1);
}

TEST_F(HwInfoTest, AnotherDeviceIsAskedWhenOneIsInUse) {
  add("0000:01:00.0", "dmar0", Driver::intel, intel(0x10, 0x20));
  add("0000:01:00.1", "dmar0", Driver::intel, intel(0x10, 0x20));
  system_.fail("VFIO_DEVICE_BIND_IOMMUFD", EBUSY);
  const Settled settled = ask();
  EXPECT_EQ(unit_of(settled, "dmar0").facts[UnitFact::cap], 0x10U);
  ASSERT_EQ(settled.host.unknown.size(), 1U);
  EXPECT_EQ(settled.host.unknown[0].fact, "devices.0000:01:00.0.hw_info");
  EXPECT_THAT(settled.host.unknown[0].why, HasSubstr("binding it to iommufd failed: Device or resource busy"));
}

TEST_F(HwInfoTest, RegistersThatSysfsShowsDifferentlyAreReportedWithBothPlaces) {
  add("0000:01:00.0", "dmar0", Driver::intel, intel(0x10, 0x20));
  scanned_.state(unit("dmar0", UnitFact::cap), std::uint64_t{0x11}, "/sys/class/iommu/dmar0/intel-iommu/cap");
  const Settled settled = ask();
  EXPECT_FALSE(unit_of(settled, "dmar0").facts[UnitFact::cap]);
  ASSERT_EQ(settled.contradictions.size(), 1U);
  EXPECT_EQ(settled.contradictions[0].claims,
            (std::vector<Claim>{{"0x10", "GET_HW_INFO of 0000:01:00.0"}, {"0x11", "/sys/class/iommu/dmar0/intel-iommu/cap"}}));
}

TEST_F(HwInfoTest, WhatKeepsItFromAskingIsAGapWithItsRemedy) {
  add("0000:01:00.0", "dmar0", Driver::intel, intel(1, 2), "e1000e");
  const Settled unbound = ask();
  ASSERT_EQ(unbound.host.unknown.size(), 1U);
  EXPECT_EQ(unbound.host.unknown[0].supply, "bind one device of each unit to vfio-pci");
  system_.remove("/dev/iommu");
  const Settled missing = ask();
  ASSERT_EQ(missing.host.unknown.size(), 1U);
  EXPECT_EQ(missing.host.unknown[0].fact, "hw_info");
  EXPECT_THAT(missing.host.unknown[0].supply, HasSubstr("CONFIG_IOMMUFD"));
}

// A driver that tells nothing (virtio) is no failure, and states nothing.
TEST_F(HwInfoTest, ATypeWithoutRegistersStatesNothing) {
  add("0000:01:00.0", "iommu0", Driver::virtio, {});
  const Settled settled = ask();
  EXPECT_THAT(settled.host.unknown, IsEmpty());
  EXPECT_FALSE(settled.host.sources.contains("iommus.iommu0.cap"));
}

TEST_F(HwInfoTest, EveryCallMayFail) {
  add("0000:01:00.0", "dmar0", Driver::intel, intel(0x10, 0x20));
  std::size_t failures = 0;
  for (std::uint64_t n = 1;; ++n) {
    system_.fail_nth(n, EIO);
    const Settled settled = ask();
    if (!system_.struck()) break;
    ++failures;
    EXPECT_FALSE(unit_of(settled, "dmar0").facts[UnitFact::cap]) << "call " << n;
    EXPECT_EQ(settled.host.unknown.size(), 1U) << "call " << n;
  }
  EXPECT_GE(failures, 4U);
}

}  // namespace
}  // namespace ioplan::intake
