// The Python modules geoact._cuda and, of the same sources over the simulation, geoact._cusim.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../cuda/backend.h"
#include "../cuda/runtime.h"
#if defined(GEOACT_SIM)
#include "../cuda/sim.h"
#endif

namespace py = pybind11;
using namespace geoact::cuda;

#if defined(GEOACT_SIM)
PYBIND11_MODULE(_cusim, m) {
  m.doc() = "The CUDA kernels of geoact run on the host: for tests.";
  m.def("launches", [] { return geoact::sim::settings().launches.load(); }, "How many kernels were launched so far.");
#else
PYBIND11_MODULE(_cuda, m) {
  m.doc() = "The CUDA kernels of geoact.";
#endif
  m.attr("_backend") = py::capsule(&backend(), backend_capsule);
  m.def("why_unavailable", &why_unavailable, "Why nothing can run here, or '' if it can.");
  m.def("architectures", [] { return std::string(GEOACT_CUDA_ARCHITECTURES); }, "What the kernels were compiled for.");
  m.def(
      "devices",
      [] {
        py::list rows;
        for (int i = 0; i < device_count(); ++i) {
          const Device& d = device(i);
          rows.append(py::make_tuple(d.name, d.major, d.minor, d.multiprocessors));
        }
        return rows;
      },
      "Name, compute capability and multiprocessors of each.");
}
