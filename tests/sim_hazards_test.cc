// The hazards of replace in Linux 7.2.13 (KR 2.4), one by one: what happens, what the switch in sim::Hazards changes,
// and what a careful caller does to survive: never replace a live device onto something it may refuse, never across
// owners; after a refusal, detach and attach again.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/support/iommufd_world.h"

namespace ioplan {
namespace {

using sim::ObjectId;
using traces::errno_of;
using traces::World;

constexpr std::uint64_t kIova = 0x1000000;
constexpr std::uint64_t kMsiWindow = 0xfee00000;

// ---------------------------------------------------------------------------------------------------------------- H1

// Device 0 blocks no-snoop, device 1 cannot: a HWPT of the first refuses the second (KR 3.1).
struct SnoopControl {
  explicit SnoopControl(std::string_view switches)
      : world(std::string("unit intel-legacy\nunit intel-no-snoop\ndevice 0 group 0\ndevice 1 group 1\n") +
              std::string(switches)),
        enforcing(world.bind(0)),
        other(world.bind(1)),
        ioas(world.ioas()),
        coherent(world->hwpt_alloc(enforcing, ioas, 0).value()),
        plain(world->hwpt_alloc(other, ioas, 0).value()) {
    EXPECT_EQ(world.map(ioas, kIova), 0);
    EXPECT_EQ(errno_of(world->attach(other, plain)), 0);
    EXPECT_EQ(world.dma_write(1, kIova), 0);
  }

  World world;
  ObjectId enforcing, other, ioas, coherent, plain;
};

TEST(HazardH1, RefusedReplaceLeavesAnIntelDeviceWithoutTranslation) {
  SnoopControl s("");
  EXPECT_EQ(errno_of(s.world->replace(s.other, s.coherent)), EINVAL);
  EXPECT_EQ(s.world->attached(s.other), s.plain) << "iommufd still records the old HWPT";
  EXPECT_EQ(s.world.dma_write(1, kIova), EFAULT) << "but the hardware walks nothing";
  EXPECT_EQ(errno_of(s.world->replace(s.other, s.plain)), 0) << "same HWPT: nothing is done";
  EXPECT_EQ(s.world.dma_write(1, kIova), EFAULT);
}

TEST(HazardH1, DetachAndAttachRepairs) {
  SnoopControl s("");
  EXPECT_EQ(errno_of(s.world->replace(s.other, s.coherent)), EINVAL);
  EXPECT_EQ(errno_of(s.world->detach(s.other)), 0);
  EXPECT_EQ(errno_of(s.world->attach(s.other, s.plain)), 0);
  EXPECT_EQ(s.world.dma_write(1, kIova), 0);
}

TEST(HazardH1, AReplaceThatSucceedsRepairsToo) {
  SnoopControl s("");
  EXPECT_EQ(errno_of(s.world->replace(s.other, s.coherent)), EINVAL);
  const ObjectId second = s.world->hwpt_alloc(s.other, s.ioas, 0).value();
  EXPECT_EQ(errno_of(s.world->replace(s.other, second)), 0);
  EXPECT_EQ(s.world.dma_write(1, kIova), 0);
}

TEST(HazardH1, SwitchedOffTheOldTranslationStays) {
  SnoopControl s("without h1\n");
  EXPECT_EQ(errno_of(s.world->replace(s.other, s.coherent)), EINVAL);
  EXPECT_EQ(s.world.dma_write(1, kIova), 0);
}

TEST(HazardH1, FirstAttachIsHarmless) {
  SnoopControl s("");
  EXPECT_EQ(errno_of(s.world->detach(s.other)), 0);
  EXPECT_EQ(errno_of(s.world->attach(s.other, s.coherent)), EINVAL);
  EXPECT_EQ(s.world->attached(s.other), std::nullopt);
  EXPECT_EQ(errno_of(s.world->attach(s.other, s.plain)), 0);
  EXPECT_EQ(s.world.dma_write(1, kIova), 0);
}

TEST(HazardH1, OnlyTheDeviceThatRefusedIsBlocked) {
  World world("unit intel-legacy\nunit intel-no-snoop\ndevice 0 group 0\ndevice 1 group 1\ndevice 1 group 1\n");
  const ObjectId enforcing = world.bind(0);
  const ObjectId first = world.bind(1);
  const ObjectId ioas = world.ioas();
  const ObjectId coherent = world->hwpt_alloc(enforcing, ioas, 0).value();
  EXPECT_EQ(errno_of(world->attach(first, world->hwpt_alloc(first, ioas, 0).value())), 0);
  EXPECT_EQ(world.map(ioas, kIova), 0);
  EXPECT_EQ(errno_of(world->replace(first, coherent)), EINVAL);
  EXPECT_EQ(world.dma_write(1, kIova), EFAULT) << "the group's first device was asked and refused";
  EXPECT_EQ(world.dma_write(2, kIova), 0) << "the second one was never asked";
}

TEST(HazardH1, DriversThatCheckFirstDoNotHaveIt) {
  World world("unit mock\ndevice 0 group 0\ndevice 0 group 1 no-dirty\n");
  const ObjectId tracked = world.bind(0);
  const ObjectId other = world.bind(1);
  const ObjectId ioas = world.ioas();
  const ObjectId dirty = world->hwpt_alloc(tracked, ioas, sim::kHwptDirtyTracking).value();
  const ObjectId plain = world->attach(other, ioas).value();
  EXPECT_EQ(world.map(ioas, kIova), 0);
  EXPECT_EQ(errno_of(world->replace(other, dirty)), EINVAL);
  EXPECT_EQ(world->attached(other), plain);
  EXPECT_EQ(world.dma_write(1, kIova), 0);
}

// ---------------------------------------------------------------------------------------------------------------- H2

// What was run on Linux 7.2.13 (KR 2.4): two devices on one automatic HWPT, each replaced onto a HWPT with a fault
// queue, which a device without PRI refuses with ENODEV.
struct FaultQueue {
  explicit FaultQueue(std::string_view switches)
      : world(std::string("unit intel-legacy\ndevice 0 group 0\ndevice 0 group 1\n") + std::string(switches)),
        first(world.bind(0)),
        second(world.bind(1)),
        ioas(world.ioas()) {
    EXPECT_EQ(world->attach(first, ioas).value(), world->attach(second, ioas).value());
    const ObjectId queue = world->fault_queue_alloc().value();
    with_faults = world->hwpt_alloc(first, ioas, sim::kHwptFaultIdValid, queue).value();
  }
  bool window_is_usable() {
    const sim::IovaRanges usable = world->ioas_iova_ranges(ioas).value();
    for (const Range& r : usable.ranges) {
      if (r.contains({kMsiWindow, kMsiWindow + 0xfffff})) return true;
    }
    return false;
  }

  World world;
  ObjectId first, second, ioas, with_faults = 0;
};

TEST(HazardH2, RefusedReplacesOfAllDevicesFreeTheMsiWindow) {
  FaultQueue s("");
  EXPECT_FALSE(s.window_is_usable());
  EXPECT_EQ(errno_of(s.world->replace(s.first, s.with_faults)), ENODEV);
  EXPECT_FALSE(s.window_is_usable()) << "the second device still reserves it";
  EXPECT_EQ(errno_of(s.world->replace(s.second, s.with_faults)), ENODEV);
  EXPECT_TRUE(s.window_is_usable());
  EXPECT_EQ(s.world.map(s.ioas, kMsiWindow), 0) << "memory where interrupts are written";
}

TEST(HazardH2, DetachAndAttachReservesAgain) {
  FaultQueue s("");
  EXPECT_EQ(errno_of(s.world->replace(s.first, s.with_faults)), ENODEV);
  EXPECT_EQ(errno_of(s.world->replace(s.second, s.with_faults)), ENODEV);
  EXPECT_EQ(errno_of(s.world->detach(s.first)), 0);
  EXPECT_EQ(errno_of(s.world->attach(s.first, s.ioas)), 0);
  EXPECT_FALSE(s.window_is_usable());
  EXPECT_EQ(s.world.map(s.ioas, kMsiWindow), EINVAL);
}

TEST(HazardH2, MemoryInTheWindowKeepsTheDeviceOut) {
  FaultQueue s("");
  EXPECT_EQ(errno_of(s.world->replace(s.first, s.with_faults)), ENODEV);
  EXPECT_EQ(errno_of(s.world->replace(s.second, s.with_faults)), ENODEV);
  EXPECT_EQ(s.world.map(s.ioas, kMsiWindow), 0);
  EXPECT_EQ(errno_of(s.world->detach(s.first)), 0);
  EXPECT_EQ(errno_of(s.world->attach(s.first, s.ioas)), EADDRINUSE);
}

TEST(HazardH2, SwitchedOffReservationsStay) {
  FaultQueue s("without h2\n");
  EXPECT_EQ(errno_of(s.world->replace(s.first, s.with_faults)), ENODEV);
  EXPECT_EQ(errno_of(s.world->replace(s.second, s.with_faults)), ENODEV);
  EXPECT_FALSE(s.window_is_usable());
  EXPECT_EQ(s.world.map(s.ioas, kMsiWindow), EINVAL);
}

TEST(HazardH2, AGoodReplaceMovesTheReservations) {
  FaultQueue s("");
  const ObjectId elsewhere = s.world.ioas();
  EXPECT_EQ(errno_of(s.world->replace(s.first, elsewhere)), 0);
  EXPECT_EQ(errno_of(s.world->replace(s.second, elsewhere)), 0);
  EXPECT_TRUE(s.window_is_usable());
  s.ioas = elsewhere;
  EXPECT_FALSE(s.window_is_usable());
}

TEST(HazardH2, AReplaceIntoAnotherSpaceThatFailsLeavesBothAsTheyWere) {
  FaultQueue s("");
  const ObjectId elsewhere = s.world.ioas();
  EXPECT_EQ(s.world.map(elsewhere, kMsiWindow), 0);
  EXPECT_EQ(errno_of(s.world->replace(s.first, elsewhere)), EADDRINUSE);
  EXPECT_FALSE(s.window_is_usable());
}

// ---------------------------------------------------------------------------------------------------------------- H3

struct TwoOwners {
  explicit TwoOwners(std::string_view switches)
      : world(std::string("unit intel-legacy\nunit mock\ndevice 0 group 0\ndevice 1 group 1\n") +
              std::string(switches)),
        real(world.bind(0)),
        mock(world.bind(1)),
        ioas(world.ioas()),
        mock_hwpt(world->attach(mock, ioas).value()),
        real_hwpt(world->attach(real, ioas).value()) {
    EXPECT_NE(real_hwpt, mock_hwpt);
  }

  World world;
  ObjectId real, mock, ioas, mock_hwpt, real_hwpt;
};

TEST(HazardH3, ReplaceAcrossOwnersWouldCrashTheKernel) {
  TwoOwners s("");
  const std::string before = s.world.machine().world();
  const auto refused = s.world->replace(s.mock, s.real_hwpt);
  ASSERT_EQ(errno_of(refused), ENOTRECOVERABLE);
  EXPECT_NE(refused.error().reason.find("the kernel would crash here"), std::string_view::npos)
      << refused.error().reason;
  EXPECT_EQ(errno_of(s.world->replace(s.real, s.mock_hwpt)), ENOTRECOVERABLE);
  EXPECT_EQ(errno_of(s.world->vfio_attach(s.real, s.mock_hwpt)), ENOTRECOVERABLE)
      << "VFIO's second attach is a replace";
  EXPECT_EQ(s.world.machine().world(), before);
}

TEST(HazardH3, TheAutomaticWalkMeetsIt) {
  TwoOwners s("");
  EXPECT_EQ(errno_of(s.world->replace(s.real, s.ioas)), ENOTRECOVERABLE) << "the oldest automatic HWPT is the mock's";
  EXPECT_EQ(errno_of(s.world->replace(s.mock, s.ioas)), 0) << "its own comes first";
}

TEST(HazardH3, DetachAndAttachIsRefusedCleanly) {
  TwoOwners s("");
  EXPECT_EQ(errno_of(s.world->detach(s.mock)), 0);
  EXPECT_EQ(errno_of(s.world->attach(s.mock, s.real_hwpt)), EINVAL);
  EXPECT_EQ(errno_of(s.world->attach(s.mock, s.ioas)), 0);
}

TEST(HazardH3, SwitchedOffItIsAnOrdinaryRefusal) {
  TwoOwners s("without h3\n");
  EXPECT_EQ(errno_of(s.world->replace(s.mock, s.real_hwpt)), EINVAL);
  EXPECT_EQ(s.world->attached(s.mock), s.mock_hwpt);
  EXPECT_EQ(errno_of(s.world->replace(s.real, s.ioas)), 0) << "the walk goes on to its own";
}

}  // namespace
}  // namespace ioplan
