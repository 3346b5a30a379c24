// The simulator, asked the same questions as Linux.
#pragma once

#include <memory>

#include "engine/model/host.h"
#include "tests/kernel/guest/subject.h"

namespace ioplan::kernel_test {

std::unique_ptr<Subject> make_sim_subject(const Host& host);

}  // namespace ioplan::kernel_test
