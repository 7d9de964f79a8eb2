#include "api.h"

#include "accumulator.h"
#include "foreign.h"
#include "run.h"

namespace geoact::bindings {
namespace {

struct Prepared {
  Tensor in[2], out;
  Parameters parameters;
  Call call;
};

// Everything that may be refused; the same checks as for arrays that come through Python.
void prepare(const Request& request, Prepared& p) {
  const Tensor* inputs[2] = {&p.in[0], &p.in[1]};
  for (int k = 0; k < request.inputs; ++k) describe(request.in[k], "x", p.in[k]);
  describe(request.out, "out", p.out);
  const Tensor& x = p.in[0];
  int axis = 0;
  for (int k = 0; k < request.numbers; ++k) p.parameters.put(k, x.dtype, &request.number[k], 1);
  if (request.weighted) {
    Tensor weight;
    describe(request.weight, "weight", weight);
    axis = channel_axis_of(x, request.channel_axis);
    p.parameters.put_array(0, "weight", weight, x, channels_of(x, axis));
  }
  require(static_cast<Accumulator*>(request.accumulator), request.direction, x);
  p.call = begin(request.direction, request.activation, inputs, request.inputs, p.out.array, request.in_place);
  place_parameters(p.call, p.parameters, axis);
  if (request.parameter_gradient) p.call.parameters = p.parameters.size[0];
}

Outcome run(const Request& request) {
  Prepared p;
  try {
    prepare(request, p);
    if (p.in[0].backend) return Outcome::refused;  // a backend needs the array, not only its memory
  } catch (const std::exception&) {
    return Outcome::refused;
  }
  try {
    auto* stats = static_cast<Accumulator*>(request.accumulator);
    finish(p.call, p.in[0], p.parameters, stats, {request.parameter_gradient, {}}, request.locked);
  } catch (const py::builtin_exception& error) {
    if (request.locked) error.set_error();
    return Outcome::failed;
  } catch (const std::exception& error) {
    if (request.locked) PyErr_SetString(PyExc_RuntimeError, error.what());
    return Outcome::failed;
  }
  return Outcome::done;
}

void* accumulator(PyObject* object) {
  return py::isinstance<Accumulator>(object) ? py::handle(object).cast<Accumulator*>() : nullptr;
}

const Api table = {&accumulator, &run};

}  // namespace

void register_api(py::module_& m) { m.attr("_api") = py::capsule(&table, api_capsule); }

}  // namespace geoact::bindings
