// The steps from one layout to another, as plainly as engine/lifecycle/README.md 6 can be read.
//
// Not what the engine is compared with step by step: it shows that the definition's order is safe at all (the judge of
// traces says so over random histories), and gives the tests valid traces to spoil.
#pragma once

#include <string>
#include <vector>

#include "tests/support/trace_judge.h"

namespace ioplan::trace_judge {

// Requires: equal ids are one object in both layouts; no device is in different VMs.
std::vector<TraceStep> reference_trace(const Request& request, const oracle::Layout& running,
                                       const oracle::Layout& target);

// Orders that look right and are not: what people do who do not think of KVM.
std::vector<TraceStep> plug_then_fix(const std::vector<TraceStep>& trace);       // KVM learns last of what comes
std::vector<TraceStep> tell_kvm_then_move(const std::vector<TraceStep>& trace);  // KVM learns first of what goes

}  // namespace ioplan::trace_judge
