#include "engine/apply/apply.h"

#include <fmt/format.h>

#include <algorithm>

namespace ioplan {

namespace {

std::uint64_t bytes_to_map(const std::vector<Step>& steps) {
  std::uint64_t bytes = 0;
  for (const Step& s : steps) {
    if (s.kind == StepKind::map) bytes += s.iova.extent() + 1;
  }
  return bytes;
}

// What a HWPT is, is fixed when it is made, and can be seen then; the rest waits for the end. To look after every
// attach would cost the square of the devices.
bool makes_hwpt(StepKind kind) { return kind == StepKind::hwpt_alloc || kind == StepKind::attach_ioas; }

class Executor {
 public:
  // `from`: the layout that stands, or null when nothing does.
  Executor(const Plan* from, const Plan& plan, const std::vector<Step>& steps, Backend& backend,
           const ApplyOptions& options)
      : from_(from), plan_(plan), steps_(steps), backend_(backend), options_(options) {
    progress_.steps = steps.size();
    progress_.to_map = bytes_to_map(steps);
  }

  ApplyReport run() {
    const auto before = backend_.observe();
    if (!before) {
      report_.outcome = ApplyOutcome::refused;
      report_.error = before.error();
      return std::move(report_);
    }
    if (from_ != nullptr && !stands(*before)) return std::move(report_);
    if (carry_out() && as_predicted(Scope::complete)) return std::move(report_);
    roll_back(*before);
    return std::move(report_);
  }

 private:
  bool stands(const Observation& before) {
    report_.differences = drift(*from_, before);
    if (report_.differences.empty()) return true;
    report_.outcome = ApplyOutcome::refused;
    report_.error = Error{"what stands there is not the layout to start from: " + to_text(report_.differences),
                          "`ioplan observe` shows all of it",
                          {},
                          0};
    return false;
  }

  bool carry_out() {
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      progress_.step = i;
      if (!take(steps_[i])) return false;
      if (makes_hwpt(steps_[i].kind) && !as_predicted(Scope::so_far)) return false;
    }
    progress_.step = steps_.size();
    return true;
  }

  bool take(const Step& step) {
    if (step.kind != StepKind::map) return perform(step);
    Step piece = step;
    for (bool more = true; more; piece.iova.start = piece.iova.last + 1) {
      piece.iova.last = last_of_piece(piece.iova.start, step);
      more = piece.iova.last != step.iova.last;
      if (!perform(piece)) return false;
    }
    return true;
  }

  // Pieces end at multiples of their size, which is one of the backing's, so that no large page is cut.
  std::uint64_t last_of_piece(std::uint64_t start, const Step& step) const {
    const auto ioas = std::ranges::find(plan_.ioas, step.ioas, &PlannedIoas::id);
    const std::uint64_t backing = ioas == plan_.ioas.end() ? 1 : std::max<std::uint64_t>(ioas->backing, 1);
    const std::uint64_t size = (std::max<std::uint64_t>(options_.piece, 1) + (backing - 1)) / backing * backing;
    const std::uint64_t room = size - 1 - start % size;
    return room < step.iova.last - start ? start + room : step.iova.last;
  }

  bool perform(const Step& step) {
    auto action = backend_.prepare(from_ != nullptr && step.kind == StepKind::unmap ? *from_ : plan_, step);
    if (!action) return fail(action.error());
    const auto done = (*action)->perform([this](std::uint64_t bytes) { tell(bytes); });
    if (!done) return fail(done.error());
    journal_.push_back(std::move(*action));
    if (step.kind == StepKind::map) progress_.mapped += step.iova.extent() + 1;
    tell(0);
    return true;
  }

  // `bytes` of the piece under way, on top of what is mapped.
  void tell(std::uint64_t bytes) const {
    if (!options_.progress) return;
    ApplyProgress now = progress_;
    now.mapped += bytes;
    options_.progress(now);
  }

  bool as_predicted(Scope scope) {
    auto observed = backend_.observe();
    if (!observed) return fail(observed.error());
    report_.differences = compare(*observed, scope);
    if (!report_.differences.empty()) {
      report_.error = Error{to_text(report_.differences), "", {}, 0};
      if (scope == Scope::so_far) report_.failed_step = progress_.step;
      return false;
    }
    if (scope == Scope::complete) report_.observed = std::move(*observed);
    return true;
  }

  // On the way between two layouts there are HWPTs of both.
  std::vector<Difference> compare(const Observation& observed, Scope scope) const {
    if (from_ == nullptr) return differences(plan_, observed, scope);
    if (scope == Scope::complete) return drift(plan_, observed);
    std::vector<Difference> found = differences(plan_, observed, scope);
    std::erase_if(found, [&](const Difference& d) { return d.subject != steps_[progress_.step].hwpt; });
    return found;
  }

  bool fail(Error error) {
    if (progress_.step < steps_.size()) {
      error.message =
          fmt::format("step {}, {}: {}", progress_.step + 1, to_text(steps_[progress_.step]), error.message);
      report_.failed_step = progress_.step;
    }
    report_.error = std::move(error);
    return false;
  }

  void roll_back(const Observation& before) {
    for (; !journal_.empty(); journal_.pop_back()) {
      Action& action = *journal_.back();
      if (const auto undone = action.undo(); !undone) {
        report_.remains.push_back(fmt::format("{}: {}", action.remains(), undone.error().message));
      }
    }
    if (report_.remains.empty()) doubt(before);
    report_.outcome = report_.remains.empty() ? ApplyOutcome::rolled_back : ApplyOutcome::incomplete;
  }

  // How large tables are is drift's business: they may have grown. So is what a container offers: it may be more than it was.
  Observation but_for_history(Observation world) const {
    for (ObservedHwpt& h : world.hwpts) h.page_table_bytes.reset();
    for (ObservedIoas& i : world.ioas) {
      if (plan_.interface == KernelInterface::type1) i.ranges.reset();
    }
    return world;
  }

  // Every undo says that it worked: the world must look as it did.
  void doubt(const Observation& before) {
    const auto after = backend_.observe();
    if (!after) {
      report_.remains.push_back("cannot be told: " + after.error().message);
    } else if (from_ != nullptr) {
      const auto found = drift(*from_, *after);
      if (!found.empty()) {
        report_.remains.push_back(to_text(found));
      } else if (but_for_history(*after) != but_for_history(before)) {
        report_.remains.push_back("memory");
      }
    } else if (*after != before) {
      for (const ObservedHwpt& h : after->hwpts) report_.remains.push_back(h.id + ": still there");
      for (const ObservedIoas& i : after->ioas) report_.remains.push_back(i.id + ": still there");
      if (report_.remains.empty()) report_.remains.push_back("pinned memory");
    }
  }

  const Plan* from_;
  const Plan& plan_;
  const std::vector<Step>& steps_;
  Backend& backend_;
  const ApplyOptions& options_;
  ApplyProgress progress_;
  std::vector<std::unique_ptr<Action>> journal_;  // performed, oldest first
  ApplyReport report_;
};

tl::unexpected<Error> wrong_interface(KernelInterface planned_for) {
  if (planned_for == KernelInterface::iommufd) {
    return failure("the plan is for iommufd: VFIO type1 makes other page tables of the same devices",
                   "plan again with `ioplan plan --backend type1`");
  }
  return failure("the plan is for VFIO type1: its page tables are made by groups that join a container",
                 "apply it with `--backend type1`, or plan again without `--backend type1`");
}

}  // namespace

Result<void> admissible(const Plan& plan, const Host& host, Backend& backend) {
  if (plan.verdict != Verdict::feasible) {
    const std::string_view verdict = kVerdictNames[static_cast<std::size_t>(plan.verdict)];
    return failure(fmt::format("the plan is {}: there is nothing to apply", verdict));
  }
  if (plan.interface != backend.interface()) return wrong_interface(plan.interface);
  if (const std::string own = fingerprint(host); own != plan.fingerprint) {
    const std::string name = host.name.empty() ? "this host" : "`" + host.name + "`";
    return failure(
        fmt::format("the plan was made for a host with fingerprint `{}`, and {} has `{}`", plan.fingerprint, name, own),
        "name the host document that the plan was made from, or plan again for this host");
  }
  return backend.admit(plan);
}

ApplyReport apply_plan(const Plan& plan, const Host& host, Backend& backend, const ApplyOptions& options) {
  if (const auto ok = admissible(plan, host, backend); !ok) {
    ApplyReport refused;
    refused.outcome = ApplyOutcome::refused;
    refused.error = ok.error();
    return refused;
  }
  return Executor(nullptr, plan, plan.steps, backend, options).run();
}

ApplyReport apply_transition(const Plan& from, const Plan& to, const std::vector<Step>& steps, const Host& host,
                             Backend& backend, const ApplyOptions& options) {
  for (const Plan* plan : {&from, &to}) {
    if (const auto ok = admissible(*plan, host, backend); !ok) {
      ApplyReport refused;
      refused.outcome = ApplyOutcome::refused;
      refused.error = ok.error();
      return refused;
    }
  }
  return Executor(&from, to, steps, backend, options).run();
}

std::string to_text(const Step& s) {
  switch (s.kind) {
    case StepKind::bind:
      return fmt::format("bind {} to iommufd", s.device);
    case StepKind::ioas_alloc:
      return fmt::format("allocate {}", s.ioas);
    case StepKind::allow_iovas:
      return fmt::format("allow only the IOVAs of the memory in {}", s.ioas);
    case StepKind::hwpt_alloc:
      return fmt::format("allocate {} in {} with device {}", s.hwpt, s.ioas, s.device);
    case StepKind::attach:
      return fmt::format("attach {} to {}", s.device, s.hwpt);
    case StepKind::attach_ioas:
      return fmt::format("attach {} to {}", s.device, s.ioas);
    case StepKind::map:
      return fmt::format("map {:#x}-{:#x} {} in {}", s.iova.start, s.iova.last, s.writeable ? "rw" : "ro", s.ioas);
    case StepKind::unbind:
      return fmt::format("close {}", s.device);
    case StepKind::kvm_file_add:
      return fmt::format("open {} and register its file with KVM", s.device);
    case StepKind::kvm_file_del:
      return fmt::format("take the file of {} from KVM", s.device);
    case StepKind::replace:
      return fmt::format("replace the HWPT of {} and its group by {}", s.device, s.hwpt);
    case StepKind::detach:
      return fmt::format("detach {}", s.device);
    case StepKind::hwpt_destroy:
      return fmt::format("destroy {}", s.hwpt);
    case StepKind::unmap:
      return fmt::format("unmap {:#x}-{:#x} in {}", s.iova.start, s.iova.last, s.ioas);
    case StepKind::ioas_destroy:
      return fmt::format("destroy {}", s.ioas);
  }
  return {};
}

std::string to_text(const std::vector<Difference>& differences) {
  const Difference& first = differences.front();
  std::string text =
      fmt::format("{}.{}: predicted {}, observed {}", first.subject, first.attribute, first.predicted, first.observed);
  if (differences.size() > 1) text += fmt::format(" (and {} more)", differences.size() - 1);
  return text;
}

}  // namespace ioplan
