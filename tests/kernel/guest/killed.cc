// `ioplan apply --backend iommufd` is killed at random points, again and again: nothing of it may be left.
//
// It runs as a user who may lock just what the plan pins, and whose locked memory the kernel counts together for all of
// the user's processes (RLIMIT_MEMLOCK, IOMMU_OPTION_RLIMIT_MODE 0). After every kill the same plan is applied once
// more, by the same user under the same limit: it succeeds only when the device is bound no more and not one page is
// still counted, and then the device's cdev is free as well. Every ten kills the program itself does so.
//
// SIGKILL, SIGTERM and SIGINT take turns; the delay covers the whole of a run that nobody kills and a little more, and
// every fourth run has --hold and is killed when all is mapped. Where a kill hit is told by what the process had open and pinned at that moment; kills
// while memory was being mapped must be among them. Kernel command line: ioplan.kills.
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <random>
#include <string>

#include "backends/iommufd/calls.h"
#include "backends/iommufd/iommufd_backend.h"
#include "engine/apply/apply.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/command.h"

namespace ioplan::kernel_test {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMemory = std::uint64_t{64} << 20;
constexpr std::array kSignals = {SIGKILL, SIGTERM, SIGINT};

const std::vector<std::string> kApply = {"apply", kPlanFile, "--backend", "iommufd", kHostFile};

// What a process had when it was killed.
enum Phase : std::uint8_t { starting, opened, bound, mapping, mapped, over, kPhases };
constexpr std::array<const char*, kPhases> kPhaseNames = {
    "starting", "with /dev/iommu open", "with the device bound", "while mapping", "when all was mapped", "too late"};

std::uint64_t pinned_kib(pid_t process) {
  const std::string status = read_file("/proc/" + std::to_string(process) + "/status");
  const std::size_t at = status.find("VmPin:");
  return at == std::string::npos ? 0 : std::stoull(status.substr(at + 6));
}

bool has_open(pid_t process, const char* prefix) {
  const std::string folder = "/proc/" + std::to_string(process) + "/fd";
  for (const std::string& fd : list_folder(folder)) {
    std::array<char, 256> target{};
    if (readlink((folder + "/" + fd).c_str(), target.data(), target.size() - 1) > 0 &&
        std::string_view(target.data()).starts_with(prefix))
      return true;
  }
  return false;
}

// The kernel counts what is pinned at the end of a map; the guest's memory is a file from its beginning on.
Phase phase_of(pid_t process) {
  if (pinned_kib(process) != 0) return mapped;
  if (has_open(process, "/memfd:ioplan-guest")) return mapping;
  if (has_open(process, "/dev/vfio/")) return bound;
  return has_open(process, "/dev/iommu") ? opened : starting;
}

// The same plan, in a child of ours.
struct NextApply {
  Plan plan;
  Host host;

  bool succeeds() const {
    const int code = as_user([this] {
      const auto system = vfio::linux_system();
      iommufd::IommufdBackend backend(*system, host);
      const ApplyReport report = apply_plan(plan, host, backend);
      if (report.error) std::printf("the next apply: %s\n", to_text(*report.error).c_str());
      std::fflush(stdout);
      return report.outcome == ApplyOutcome::done ? 0 : 1;
    });
    return code == 0;
  }
};

Result<NextApply> next_apply() {
  const std::array<std::string, 1> files = {kHostFile};
  const auto loaded = load(files);
  if (!loaded) return tl::make_unexpected(loaded.error());
  const auto plan = read_plan_file(kPlanFile);
  if (!plan) return tl::make_unexpected(plan.error());
  return NextApply{*plan, loaded->request.host};
}

void open_to_the_user() {
  chmod("/dev/iommu", 0666);
  for (const std::string& name : list_folder("/dev/vfio/devices")) chmod(("/dev/vfio/devices/" + name).c_str(), 0666);
}

// A process of the same user that has one page pinned, by way of another device, until it is killed; 0 when it cannot.
pid_t pin_one_page(const std::string& cdev) {
  std::array<int, 2> pinned{};
  if (pipe(pinned.data()) != 0) return 0;
  const pid_t child = fork();
  if (child == 0) {
    const auto work = [&] {
      using namespace iommufd;
      const auto system = linux_system();
      const auto iommu = system->open("/dev/iommu"), device = system->open(cdev),
                 memory = system->memfd_create("page", 4096);
      if (!iommu || !device || !memory || !system->ftruncate(*memory, 4096)) return 1;
      const auto id = vfio_bind(*system, *device, *iommu);
      const auto ioas = ioas_alloc(*system, *iommu);
      if (!id || !ioas || !vfio_attach(*system, *device, *ioas)) return 2;
      const std::uint32_t flags = uapi::IOMMU_IOAS_MAP_FIXED_IOVA | uapi::IOMMU_IOAS_MAP_READABLE;
      if (!ioas_map_file(*system, *iommu, *ioas, {0, 4096, flags}, *memory, 0)) return 3;
      if (write(pinned[1], "!", 1) != 1) return 4;
      pause();
      return 0;
    };
    close(pinned[0]);
    become_user();
    _exit(work());
  }
  close(pinned[1]);
  char told = 0;
  const bool there = read(pinned[0], &told, 1) == 1;
  close(pinned[0]);
  return there ? child : 0;
}

// Whether the kernel would see a leak: one page of the same user is one too many.
bool limit_binds(const Guest& guest, const NextApply& next) {
  const pid_t other = pin_one_page(cdev_of(guest, 1));
  if (other == 0) return false;
  const bool succeeded = next.succeeds();
  kill(other, SIGKILL);
  waitpid(other, nullptr, 0);
  return !succeeded && next.succeeds();
}

struct Tally {
  std::array<unsigned, kPhases> phases{};
  unsigned kills = 0;
};

// False when something was left.
bool kill_one(unsigned n, std::chrono::microseconds whole, std::mt19937_64& random, const NextApply& next,
              Tally& tally) {
  std::vector<std::string> arguments = kApply;
  const bool hold = n % 4 == 3;
  if (hold) arguments.emplace_back("--hold");
  const pid_t child = start(arguments, Who::user);
  const std::int64_t first = hold ? whole.count() : 0, last = hold ? whole.count() * 2 : whole.count() * 11 / 10;
  const auto delay = std::uniform_int_distribution<std::int64_t>(first, last)(random);
  usleep(static_cast<useconds_t>(delay));
  int status = 0;
  const bool ended = waitpid(child, &status, WNOHANG | WNOWAIT) == child;
  const Phase phase = ended ? over : phase_of(child);
  kill(child, kSignals[n % kSignals.size()]);
  finish(child);
  ++tally.phases[phase];
  ++tally.kills;
  if (n % 10 == 9 && !exited(run(kApply, Who::user), 0)) return false;
  return next.succeeds();
}

}  // namespace

Outcome killed(const Guest& guest) {
  if (const std::string why = write_plan(guest, kMemory); !why.empty()) return {false, why};
  const auto next = next_apply();
  if (!next) return {false, to_text(next.error())};
  open_to_the_user();
  set_user_limit(kMemory);
  const auto start_time = Clock::now();
  const Ran whole = run(kApply, Who::user);
  const auto duration = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start_time);
  if (!exited(whole, 0)) return {false, "not even without a kill: " + whole.out};
  if (!limit_binds(guest, *next)) return {false, "the limit does not bind: a leak would not be seen"};

  std::mt19937_64 random(guest.seed);
  Tally tally;
  for (std::uint64_t n = command_line_number("ioplan.kills", 100); tally.kills < n;) {
    if (tally.kills % 10 == 0) std::printf("killed: %u so far\n", tally.kills);
    if (!kill_one(tally.kills, duration, random, *next, tally))
      return {false, "something was left by kill " + std::to_string(tally.kills)};
  }
  std::string text =
      std::to_string(tally.kills) + " kills in runs of " + std::to_string(duration.count() / 1000) + " ms:";
  for (std::size_t p = 0; p < kPhases; ++p)
    text += std::string(p == 0 ? " " : ", ") + std::to_string(tally.phases[p]) + " " + kPhaseNames[p];
  return {tally.phases[mapping] > 0 && tally.phases[mapped] > 0, text + "; nothing was left"};
}

}  // namespace ioplan::kernel_test
