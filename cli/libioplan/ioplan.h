// libioplan: ioplan for programs. Documents in, a plan out; doubt it, carry it out, and try it all on a simulated host.
//
//   auto loaded = ioplan::load(files);                               // Host, VirtualMachine and Policy documents
//   ioplan::Plan plan = ioplan::make_plan(loaded->request);          // feasible, infeasible or undecided
//   ioplan::Judgement doubt = ioplan::check_plan(plan, loaded->request);
//   auto machine = ioplan::simulate(loaded->request.host);           // a host whose IOMMUs behave as under Linux 7.2.13
//   ioplan::sim::SimBackend backend(**machine);
//   ioplan::ApplyReport report = ioplan::apply_plan(plan, loaded->request.host, backend);
//
// On this machine, through /dev/iommu (Linux 6.6 or newer), opened here or passed in by who may open it; guest memory of
// its own or lent by the caller, and what devices write, once the plan stands:
//
//   auto system = ioplan::vfio::linux_system();
//   ioplan::iommufd::IommufdOptions options;                         // descriptors, memory, whose locked memory counts
//   ioplan::iommufd::IommufdBackend backend(*system, loaded->request.host, options);
//   ioplan::ApplyReport report = ioplan::apply_plan(plan, loaded->request.host, backend);
//   backend.track_dirty_of_vm("vm", ioplan::iommufd::DirtyTracking::on);
//
// What was applied lasts as long as the backend and its descriptors; tests replace the system (backends/vfio/system.h).
//
// What the calls give and take is described where it is declared: documents (engine/document/load.h, plan_document.h),
// the Plan (engine/model/plan.h), the judge (engine/check/check.h), the executor (engine/apply/apply.h), the simulated
// machine with DMA, failure injection and inspection (backends/sim/machine.h, iommufd.h), /dev/iommu
// (backends/iommufd/iommufd_backend.h). This header adds Linux's law
// to those that ask for one. Nothing throws but for want of memory; equal input gives equal output.
// Held by examples/embed-sim, which is built against the installed library.
#pragma once

#include <memory>

#include "backends/iommufd/iommufd_backend.h"
#include "backends/sim/iommufd.h"
#include "backends/sim/machine.h"
#include "backends/sim/sim_backend.h"
#include "engine/apply/apply.h"
#include "engine/check/check.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

// The fewest HWPTs that work, by the law of Linux 7.2.13. Requires: a Request of load(), with at least one VM.
Plan make_plan(const Request& request);

// The judge's objections; none when the plan stands.
Judgement check_plan(const Plan& plan, const Request& request);

// A simulated machine with the units, devices and groups of `host`.
// Errors: a fact that a device's driver reads is absent and has no stock default.
Result<std::unique_ptr<sim::Machine>> simulate(const Host& host, const sim::MachineOptions& options = {});

}  // namespace ioplan
