// Compiled once per instruction set and storage type: the whole of pass.h and walk.h, reached through one table.
//
// GEOACT_ISA names the namespace, GEOACT_STORAGE the type in memory, GEOACT_TABLE the one symbol that leaves the
// object. Nothing here may use a std template: the linker could keep this object's copy for everyone.
#include <new>

#include "mask.h"
#include "observe.h"
#include "pass.h"
#include "walk.h"

namespace geoact::GEOACT_ISA {
namespace {

using S = GEOACT_STORAGE;
using T = compute<S>::type;

template <class Pass, template <class> class A>
void examine(const Block& block, double* first, double* second, double* slope) {
  examine_block<Pass, A>(block, first, second, slope);
}

template <class Pass, template <class> class A, Level L>
void walk(const Task& task) {
  using Work = Walk<typename Pass::Statistics, T, L>;
  const KernelPair<T> kernels{run_block<Pass, A, L>, examine<Pass, A>, Pass::shortcuts};
  static_assert(sizeof(Work) <= scratch_bytes);
  (new (task.scratch) Work(task, kernels, sizeof(S), smallest_normal<S>))->run();
}

using Run = void (*)(const Task&);

template <template <class> class A>
struct Row {
  static constexpr Run forward[3] = {walk<Forward<A, S>, A, Level::none>, walk<Forward<A, S>, A, Level::counts>,
                                     walk<Forward<A, S>, A, Level::moments>};
  static constexpr Run backward[2] = {walk<Backward<A, S>, A, Level::none>, walk<Backward<A, S>, A, Level::moments>};
};

template <template <class> class G>
struct GateRow {
  static constexpr Run forward[3] = {walk<GatedForward<G, S>, G, Level::none>,
                                     walk<GatedForward<G, S>, G, Level::counts>,
                                     walk<GatedForward<G, S>, G, Level::moments>};
  static constexpr Run backward[2] = {walk<GatedBackward<G, S>, G, Level::none>,
                                      walk<GatedBackward<G, S>, G, Level::moments>};
};

template <template <template <class> class> class Row, template <class> class... A>
Run find(list<A...>, const Task& task) {
  static constexpr const Run* forward[] = {Row<A>::forward...};
  static constexpr const Run* backward[] = {Row<A>::backward...};
  return task.direction == Direction::forward ? forward[task.activation][task.level]
                                              : backward[task.activation][task.level != 0];
}

void run(const Task& task) { (task.gated ? find<GateRow>(gates{}, task) : find<Row>(activations{}, task))(task); }

template <class Statistics, Level L>
void combine_groups(double* into, const double* from, int64_t groups) {
  constexpr int cells = cells_of<Statistics, L>;
  for (int64_t g = 0; g < groups; g += D::W) {
    const int count = int(groups - g < D::W ? groups - g : D::W);
    D a[Statistics::size], b[Statistics::size];
    for (int k = 0; k < cells; ++k) {
      a[k] = load_some<D>(into + k * groups + g, count);
      b[k] = load_some<D>(from + k * groups + g, count);
    }
    Statistics::template combine<L>(a, b);
    for (int k = 0; k < cells; ++k) store_some(into + k * groups + g, a[k], count);
  }
}

void combine(Direction direction, int level, double* into, const double* from, int64_t groups) {
  if (direction == Direction::backward)
    combine_groups<Gradient, Level::moments>(into, from, groups);
  else if (level == int(Level::counts))
    combine_groups<Geometry, Level::counts>(into, from, groups);
  else
    combine_groups<Geometry, Level::moments>(into, from, groups);
}

void observe(const RowBlock& block, TierJob& job) { Observer<S, T>(block, job).run(); }
void settle(TierJob& job) { Observer<S, T>(RowBlock{}, job).settle(); }

void mask_block(Direction direction, const MaskBlock& block) {
  (direction == Direction::forward ? run_mask<Rectify, S> : run_mask<Gate, S>)(block);
}

constexpr Kernels table{sizeof(S), run, combine, observe, settle, mask_block};

}  // namespace
}  // namespace geoact::GEOACT_ISA

namespace geoact {
extern const Kernels GEOACT_TABLE;
const Kernels GEOACT_TABLE = GEOACT_ISA::table;
}  // namespace geoact
