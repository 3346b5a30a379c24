// A test that an orchestrator's author might write: does my code start a VM on this host, do its devices reach the
// guest's memory and nothing else, and what is left behind when anything fails half-way? No hardware, no root, no
// kernel.
#include <ioplan.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using Bytes = std::array<std::byte, 16>;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "FAILED: %s\n", what);
  std::exit(1);
}

// What is under test: put your own code here.
bool start_vm(const ioplan::Request& request, ioplan::sim::SimBackend& backend) {
  const ioplan::Plan plan = ioplan::make_plan(request);
  if (plan.verdict != ioplan::Verdict::feasible || !ioplan::check_plan(plan, request).accepted()) return false;
  return ioplan::apply_plan(plan, request.host, backend).outcome == ioplan::ApplyOutcome::done;
}

void devices_reach_the_guest(ioplan::sim::Machine& machine, const ioplan::Request& request) {
  ioplan::sim::SimBackend backend(machine);
  expect(start_vm(request, backend), "the VM starts");
  std::printf("%zu HWPTs, %llu GiB pinned\n", backend.observe()->hwpts.size(),
              static_cast<unsigned long long>(backend.context().pinned_bytes() >> 30));

  Bytes sent{}, seen{};
  sent.fill(std::byte{0x5a});
  expect(machine.dma_write("0000:17:00.0", 0x100000ff8, sent).has_value(), "one drive writes to the guest");
  expect(machine.dma_read("0000:b2:00.0", 0x100000ff8, seen).has_value(), "the other reads");
  expect(sent == seen, "what the first has written");
  std::puts("0000:b2:00.0 reads what 0000:17:00.0 has written at 0x100000ff8");

  const auto beyond = machine.dma_write("0000:17:00.0", 0x280000000, sent);  // RAM ends in front of it
  expect(!beyond.has_value(), "no drive writes beyond the guest's memory");
  std::printf("0000:17:00.0 is refused at 0x280000000: %s\n", std::string(beyond.error().reason).c_str());
}

// Everything that can fail for lack of resources does so once.
void failures_leave_nothing_behind(ioplan::sim::Machine& machine, const ioplan::Request& request) {
  for (unsigned n = 1;; ++n) {
    ioplan::sim::SimBackend backend(machine);
    const std::string before = machine.world();
    machine.fail_nth(n);
    const bool started = start_vm(request, backend);
    if (!machine.injected()) {
      expect(started && n > 1, "the VM starts when nothing fails, and something could");
      std::puts("every operation failed once, and the host was as before each time");
      return;
    }
    expect(!started, "a failure is noticed");
    expect(machine.world() == before, "a failure leaves the host as it was");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> files(argv + 1, argv + argc);
  const auto loaded = ioplan::load(files);
  if (!loaded) return std::fprintf(stderr, "%s\n", ioplan::to_text(loaded.error()).c_str()), 2;
  const auto machine = ioplan::simulate(loaded->request.host);
  if (!machine) return std::fprintf(stderr, "%s\n", ioplan::to_text(machine.error()).c_str()), 2;
  devices_reach_the_guest(**machine, loaded->request);
  failures_leave_nothing_behind(**machine, loaded->request);
  return 0;
}
