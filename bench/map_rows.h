// The families of bench_map's rows beside the operations themselves, a file each.
#pragma once

namespace ioplan::bench {

void register_thread_rows();     // map_threads.cc: one thread against two on one table
void register_fan_out_rows();    // map_fan_out.cc: an IOAS on top, with 1, 2 and 4 HWPTs
void register_guarantee_rows();  // map_guarantees.cc: what thread-safety and dirty bits cost

}  // namespace ioplan::bench
