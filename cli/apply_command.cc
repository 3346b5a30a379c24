#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "backends/iommufd/iommufd_backend.h"
#include "backends/sim/machine.h"
#include "backends/sim/simulated_backend.h"
#include "backends/type1/type1_backend.h"
#include "cli/commands.h"
#include "cli/lifecycle_text.h"
#include "cli/plan_text.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/base/text.h"
#include "engine/check/check.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/lifecycle/layout.h"
#include "engine/lifecycle/transition.h"

namespace ioplan::cli {

namespace {

using Clock = std::chrono::steady_clock;

// One line on a terminal, drawn anew ten times a second at most: bytes, rate, what remains. Nothing in pipes.
class ProgressLine {
 public:
  explicit ProgressLine(int fd) : visible_(isatty(fd) != 0) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() {
    if (drawn_) std::fputs("\r\033[K", stderr);
  }

  void show(const ApplyProgress& p) {
    const auto now = Clock::now();
    if (!visible_ || now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    drawn_ = true;
    fmt::print(stderr, "\r\033[Kstep {}/{}{}", p.step + 1, p.steps,
               mapping(p, std::chrono::duration<double>(now - start_).count()));
    std::fflush(stderr);
  }

 private:
  static std::string mapping(const ApplyProgress& p, double seconds) {
    if (p.mapped == 0 || seconds <= 0) return {};
    const double rate = static_cast<double>(p.mapped) / seconds;  // bytes a second
    const double remaining = static_cast<double>(p.to_map - p.mapped) / rate;
    return fmt::format(", mapped {} of {}, {}/s, {:.0f} s remain", approximate_size(p.mapped),
                       approximate_size(p.to_map), approximate_size(static_cast<std::uint64_t>(rate)), remaining);
  }

  bool visible_;
  bool drawn_ = false;
  Clock::time_point start_ = Clock::now(), last_{};
};

// What happened, or what would happen.
struct Story {
  const Plan& plan;
  const Host& host;
  std::string_view backend;
  ApplyReport report;
  bool dry_run = false;  // only asked whether it may be applied
};

int exit_code(const ApplyReport& report) {
  switch (report.outcome) {
    case ApplyOutcome::done:
      return kYes;
    case ApplyOutcome::refused:
      return kBadInput;
    case ApplyOutcome::rolled_back:
      return kRolledBack;
    case ApplyOutcome::incomplete:
      return kIncomplete;
  }
  return kInternal;
}

// ------------------------------------------------------------------------------------------------- text

std::string hwpt_text(const ObservedHwpt& h) {
  std::string text;
  if (h.format && h.stage)
    text += fmt::format("{} stage {}", kPageTableFormatNames[static_cast<std::size_t>(*h.format)], *h.stage);
  if (h.levels && *h.levels != 0) text += fmt::format(", {} levels", *h.levels);
  if (h.address_bits) text += fmt::format(", {} bits", *h.address_bits);
  if (h.page_sizes) text += fmt::format(", {}", format_page_sizes(*h.page_sizes));
  if (h.enforce_cache_coherency) text += *h.enforce_cache_coherency ? ", blocks no-snoop" : ", does not block no-snoop";
  for (std::size_t f = 0; h.flags && f < kHwptFlagNames.size(); ++f) {
    if ((*h.flags >> f & 1) != 0) text += fmt::format(", {}", kHwptFlagNames[f]);
  }
  if (h.page_table_bytes) text += fmt::format(", {} of tables", approximate_size(*h.page_table_bytes));
  return text;
}

std::string observed_text(const Observation& o) {
  std::string text = "\n  observed, as predicted\n";
  for (const ObservedIoas& i : o.ioas) {
    text += fmt::format("    {}", i.id);
    if (i.ranges) text += "  usable " + format_ranges(*i.ranges);
    if (i.alignment) text += fmt::format(", aligned to {}", format_size(*i.alignment));
    text += "\n";
  }
  for (const ObservedHwpt& h : o.hwpts) {
    text += fmt::format("    {}  {}\n", h.id, hwpt_text(h));
    if (h.devices) text += fmt::format("           {}\n", fmt::join(*h.devices, " "));
  }
  if (o.pinned_bytes) text += fmt::format("    pinned {}\n", approximate_size(*o.pinned_bytes));
  return text;
}

std::string headline(const Story& s) {
  const std::string host = s.host.name.empty() ? "the host" : s.host.name;
  const std::string what = fmt::format("{} on {}", fmt::join(s.plan.vms, ", "), host);
  if (s.dry_run) return fmt::format("dry run on {}: {}; nothing is touched\n\n", s.backend, what);
  switch (s.report.outcome) {
    case ApplyOutcome::done:
      return fmt::format("applied on {}: {}\n\n", s.backend, what);
    case ApplyOutcome::refused:
      return {};
    case ApplyOutcome::rolled_back:
      return fmt::format("rolled back on {}: {}; the world is as before\n\n", s.backend, what);
    case ApplyOutcome::incomplete:
      return fmt::format("rollback incomplete on {}: {}\n\n", s.backend, what);
  }
  return {};
}

// What became of a step. Of an incomplete rollback only what remains is known.
std::string_view fate(const Story& s, std::size_t step) {
  if (s.dry_run) return "";
  if (s.report.outcome == ApplyOutcome::done) return "done    ";
  const std::size_t reached = s.report.failed_step.value_or(s.plan.steps.size());
  if (step == reached) return "failed  ";
  if (step > reached) return "        ";
  return s.report.outcome == ApplyOutcome::rolled_back ? "undone  " : "done    ";
}

std::string text_of(const Story& s) {
  std::string text = headline(s);
  if (text.empty()) return text;
  for (std::size_t i = 0; i < s.plan.steps.size(); ++i) {
    text += fmt::format("  {:>3}. {}{}\n", i + 1, fate(s, i), to_text(s.plan.steps[i]));
  }
  for (const Difference& d : s.report.differences) {
    text += fmt::format("  {}.{}: predicted {}, observed {}\n", d.subject, d.attribute, d.predicted, d.observed);
  }
  for (const std::string& left : s.report.remains) text += fmt::format("  remains: {}\n", left);
  if (!s.dry_run && s.report.outcome == ApplyOutcome::done) text += observed_text(s.report.observed);
  return text;
}

// ------------------------------------------------------------------------------------------------- document

using Json = nlohmann::ordered_json;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json json_of(const Range& r) { return Json::array({format_hex(r.start), format_hex(r.last)}); }

Json json_of(const std::optional<std::vector<Range>>& ranges) {
  if (!ranges) return nullptr;
  Json list = Json::array();
  for (const Range& r : *ranges) list.push_back(json_of(r));
  return list;
}

Json json_of(const ObservedIoas& i) {
  return {
      {"id", i.id}, {"ranges", json_of(i.ranges)}, {"alignment", or_null(i.alignment)}, {"mapped", json_of(i.mapped)}};
}

Json sizes_of(std::optional<std::uint64_t> bitmap) {
  if (!bitmap) return nullptr;
  Json sizes = Json::array();
  for (unsigned lg2 = 0; lg2 < 64; ++lg2) {
    if ((*bitmap >> lg2 & 1) != 0) sizes.push_back(std::uint64_t{1} << lg2);
  }
  return sizes;
}

Json flags_of(std::optional<std::uint8_t> flags) {
  if (!flags) return nullptr;
  Json names = Json::array();
  for (std::size_t f = 0; f < kHwptFlagNames.size(); ++f) {
    if ((*flags >> f & 1) != 0) names.push_back(kHwptFlagNames[f]);
  }
  return names;
}

Json json_of(const ObservedHwpt& h) {
  return {{"id", h.id},
          {"ioas", h.ioas},
          {"allocator", or_null(h.allocator)},
          {"flags", flags_of(h.flags)},
          {"driver", h.driver ? Json(name_of(*h.driver)) : Json(nullptr)},
          {"stage", or_null(h.stage)},
          {"format", h.format ? Json(kPageTableFormatNames[static_cast<std::size_t>(*h.format)]) : Json(nullptr)},
          {"levels", or_null(h.levels)},
          {"address_bits", or_null(h.address_bits)},
          {"aperture", h.aperture ? json_of(*h.aperture) : Json(nullptr)},
          {"page_sizes", sizes_of(h.page_sizes)},
          {"enforce_cache_coherency", or_null(h.enforce_cache_coherency)},
          {"page_table_bytes", or_null(h.page_table_bytes)},
          {"devices", or_null(h.devices)}};
}

Json json_of(const Observation& o) {
  Json document{{"ioas", Json::array()}, {"hwpts", Json::array()}, {"pinned_bytes", or_null(o.pinned_bytes)}};
  for (const ObservedIoas& i : o.ioas) document["ioas"].push_back(json_of(i));
  for (const ObservedHwpt& h : o.hwpts) document["hwpts"].push_back(json_of(h));
  return document;
}

Json json_of(const Error& e) {
  return {{"message", e.message}, {"errno", e.errno_value == 0 ? Json(nullptr) : Json(strerrorname_np(e.errno_value))}};
}

std::string document_of(const Story& s) {
  constexpr std::array<std::string_view, 4> kOutcomes = {"done", "refused", "rolled-back", "incomplete"};
  const bool done = !s.dry_run && s.report.outcome == ApplyOutcome::done;
  Json document{{"outcome", s.dry_run ? "dry-run" : kOutcomes[static_cast<std::size_t>(s.report.outcome)]},
                {"backend", s.backend},
                {"steps", Json::array()},
                {"failed_step", s.report.failed_step ? Json(*s.report.failed_step + 1) : Json(nullptr)},
                {"error", s.report.error ? json_of(*s.report.error) : Json(nullptr)},
                {"differences", Json::array()},
                {"observed", done ? json_of(s.report.observed) : Json(nullptr)},
                {"remains", s.report.remains}};
  for (const Step& step : s.plan.steps) document["steps"].push_back(to_text(step));
  for (const Difference& d : s.report.differences) {
    document["differences"].push_back(
        {{"subject", d.subject}, {"attribute", d.attribute}, {"predicted", d.predicted}, {"observed", d.observed}});
  }
  return document.dump(2) + "\n";
}

Outcome told(const Story& s, Format format) {
  Outcome outcome{s.dry_run ? static_cast<int>(kYes) : exit_code(s.report), "", ""};
  if (s.report.error) outcome.err = to_text(*s.report.error) + "\n";
  if (outcome.code != kBadInput) outcome.out = format == Format::text ? text_of(s) : document_of(s);
  return outcome;
}

// ------------------------------------------------------------------------------------------------- the command

// What can be said before a backend is asked; nothing when the plan may be applied.
std::optional<Outcome> refused(const Plan& plan, const Request& request) {
  if (plan.verdict != Verdict::feasible) {
    const std::string_view verdict = kVerdictNames[static_cast<std::size_t>(plan.verdict)];
    return Outcome{plan.verdict == Verdict::infeasible ? kNo : kUndecided, "",
                   fmt::format("error: the plan is {}: there is nothing to apply\n", verdict)};
  }
  if (request.vms.empty() || plan.fingerprint != fingerprint(request.host)) return std::nullopt;
  std::string text;
  for (const Objection& o : check_plan(plan, request, law_of(plan.interface)).objections) {
    text += fmt::format("error: the judge objects ({}): {}\n", o.obligation, o.text);
  }
  if (text.empty()) return std::nullopt;
  return Outcome{kNo, "", text + "help: nothing was touched; plan again with `ioplan plan`\n"};
}

Result<void> require_backend(const ApplyArguments& arguments) {
  const bool real = arguments.backend != "sim";
  if (real && arguments.fail_nth != 0)
    return failure("`--fail-nth` makes the simulator fail", "give it with `--backend sim`");
  if (!real && arguments.hold) return failure("`--hold` keeps what the kernel holds", "give it with `--backend iommufd` or `type1`");
  const bool passed = arguments.iommu_descriptor || !arguments.device_descriptors.empty();
  if (arguments.backend != "iommufd" && (passed || arguments.accounting != "per-user")) {
    return failure("`--iommu-fd`, `--device-fd` and `--accounting` are about /dev/iommu", "give them with `--backend iommufd`");
  }
  return {};
}

ApplyReport dry_run(const Plan& plan, const Host& host, Backend& backend) {
  ApplyReport report;
  if (const auto ok = admissible(plan, host, backend); !ok) {
    report.outcome = ApplyOutcome::refused;
    report.error = ok.error();
  }
  return report;
}

ApplyReport apply_with_progress(const Plan& plan, const Host& host, Backend& backend) {
  ProgressLine line(STDERR_FILENO);
  ApplyOptions options;
  options.progress = [&line](const ApplyProgress& p) { line.show(p); };
  return apply_plan(plan, host, backend, options);
}

Outcome carried_out(const ApplyArguments& arguments, const Plan& plan, const Host& host, Backend& backend) {
  const ApplyReport report = arguments.dry_run ? dry_run(plan, host, backend) : apply_with_progress(plan, host, backend);
  return told({plan, host, backend.name(), report, arguments.dry_run}, arguments.format);
}

// From one layout to the next, as `--to` names them. What stops on the way leaves the layout before; `running` is what stands.
Outcome follow(const ApplyArguments& arguments, Plan& running, const Host& host, Backend& backend) {
  Outcome outcome;
  for (const std::string& file : arguments.to) {
    auto next = read_plan_file(file);
    if (!next) return bad_input(next.error());
    if (const auto same = same_interface(running, *next, file); !same) return bad_input(same.error());
    const Law& law = law_of(running.interface);
    for (const Plan* plan : {static_cast<const Plan*>(&running), static_cast<const Plan*>(&*next)}) {
      if (const auto layout = require_layout(*plan, host, law); !layout) return bad_input(layout.error());
    }
    Plan target = matched(running, std::move(*next), host, law);
    const Transition way = make_transition(running, target, host, law);
    Plan shown = target;
    shown.steps = way.steps;
    outcome = told({shown, host, backend.name(), apply_transition(running, target, way.steps, host, backend), false},
                   arguments.format);
    if (outcome.code != kYes) return outcome;
    running = std::move(target);
  }
  return outcome;
}

Outcome simulate(const ApplyArguments& arguments, const Plan& plan, const Host& host) {
  auto machine = sim::Machine::create(host, kernel_law());
  if (!machine) return bad_input(machine.error());
  const std::unique_ptr<Backend> backend = sim::simulated_backend(**machine, plan.interface);
  const bool goes_on = !arguments.to.empty() && !arguments.dry_run;
  const std::uint64_t nth = arguments.dry_run ? 0 : arguments.fail_nth;
  if (!goes_on) (*machine)->fail_nth(nth);
  Outcome outcome = carried_out(arguments, plan, host, *backend);
  if (goes_on && outcome.code == kYes) {
    (*machine)->fail_nth(nth);
    Plan running = plan;
    outcome = follow(arguments, running, host, *backend);
  }
  if (nth != 0 && !(*machine)->injected()) {
    outcome.err += fmt::format("warning: fewer than {} operations that can fail were needed; none failed\n", nth);
  }
  return outcome;
}

sigset_t block(std::initializer_list<int> signals) {
  sigset_t set;
  sigemptyset(&set);
  for (const int s : signals) sigaddset(&set, s);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  return set;
}

// What was applied lives as long as this process: says so, then waits for SIGINT or SIGTERM. SIGUSR1 asks for drift.
void hold(Outcome& outcome, const Plan& plan, Backend& backend) {
  const sigset_t signals = block({SIGINT, SIGTERM, SIGUSR1});
  fmt::print("{}", std::exchange(outcome.out, {}));
  std::fflush(stdout);
  int signal = 0;
  while (sigwait(&signals, &signal) == 0 && signal == SIGUSR1) {
    const auto seen = backend.observe();
    fmt::print("{}", seen ? drift_text(drift(plan, *seen)) : to_text(seen.error()) + "\n");
    std::fflush(stdout);
  }
}

bool binds(const Plan& plan, std::string_view device) {
  return std::ranges::any_of(plan.steps, [&](const Step& s) { return s.kind == StepKind::bind && s.device == device; });
}

// "0000:01:00.0=7": the last `=`, because a device's name may hold one.
Result<std::pair<std::string, int>> device_descriptor(const std::string& text, const Plan& plan) {
  const std::size_t at = text.rfind('=');
  const auto number = parse_integer(at == std::string::npos ? "" : text.substr(at + 1));
  if (at == 0 || !number || *number > std::numeric_limits<int>::max()) {
    return failure(fmt::format("`--device-fd {}` is no DEVICE=N", text), "for example `--device-fd 0000:01:00.0=7`");
  }
  std::string device = text.substr(0, at);
  if (binds(plan, device)) return std::pair(std::move(device), static_cast<int>(*number));
  std::vector<std::string> known;
  for (const Step& s : plan.steps) {
    if (s.kind == StepKind::bind) known.push_back(s.device);
  }
  return failure(fmt::format("`--device-fd {}`: the plan has no device `{}`", text, device),
                 fmt::format("it binds {}", fmt::join(known, ", ")));
}

Result<iommufd::IommufdOptions> options_of(const ApplyArguments& arguments, const Plan& plan) {
  iommufd::IommufdOptions options;
  options.iommu = arguments.iommu_descriptor;
  if (arguments.accounting == "per-process") options.accounting = iommufd::Accounting::per_process;
  for (const std::string& text : arguments.device_descriptors) {
    const auto passed = device_descriptor(text, plan);
    if (!passed) return tl::make_unexpected(passed.error());
    if (!options.devices.insert(*passed).second)
      return failure(fmt::format("`{}` is passed twice", passed->first));
  }
  return options;
}

// On this machine: carried out, on to the layouts of `--to`, and held.
Outcome on_linux(const ApplyArguments& arguments, const Plan& plan, const Host& host, Backend& backend) {
  if (arguments.hold) block({SIGUSR1});  // who asks too early is answered later
  Outcome outcome = carried_out(arguments, plan, host, backend);
  if (arguments.dry_run || outcome.code != kYes) return outcome;
  Plan running = plan;
  if (!arguments.to.empty()) outcome = follow(arguments, running, host, backend);
  if (arguments.hold && outcome.code == kYes) hold(outcome, running, backend);
  return outcome;
}

Outcome by_iommufd(const ApplyArguments& arguments, const Plan& plan, const Host& host) {
  const auto options = options_of(arguments, plan);
  if (!options) return bad_input(options.error());
  const auto system = vfio::linux_system();
  iommufd::IommufdBackend backend(*system, host, *options);
  Outcome outcome = on_linux(arguments, plan, host, backend);
  for (const std::string& again : backend.pinned_again())
    outcome.err += fmt::format("warning: pinned a second time: {}\n", again);
  return outcome;
}

Outcome by_type1(const ApplyArguments& arguments, const Plan& plan, const Host& host) {
  const auto system = vfio::linux_system();
  type1::Type1Backend backend(*system);
  return on_linux(arguments, plan, host, backend);
}

}  // namespace

Outcome apply_command(const ApplyArguments& arguments) {
  if (const auto known = require_backend(arguments); !known) return bad_input(known.error());
  const auto loaded = load(arguments.files);
  if (!loaded) return bad_input(loaded.error());
  const auto plan = read_plan_file(arguments.plan);
  if (!plan) return bad_input(plan.error());
  if (auto no = refused(*plan, loaded->request)) return *no;
  const auto apply = arguments.backend == "sim" ? simulate : arguments.backend == "iommufd" ? by_iommufd : by_type1;
  return apply(arguments, *plan, loaded->request.host);
}

}  // namespace ioplan::cli
