#pragma once

#include <memory>

#include "llmz/core/exec.h"
#include "llmz/core/memory.h"

namespace llmz {

/// What a body takes on a device of type `target`, which need not be there. `make(memory)` returns it, with its
/// persistent buffers; `rehearse(body, exec)` runs once, on nothing, each program that it will run.
template <class Make, class Rehearse>
MemoryPlan plan_of(DeviceType target, const Make& make, const Rehearse& rehearse) {
  Memory recorder(target);
  {
    Exec exec(recorder);
    auto body = make(recorder);
    rehearse(body, exec);
  }
  return recorder.finish();
}

/// A body of tensors and programs in an arena that was planned for it: recorded once on nothing, then built for good
/// by the same `make`.
template <class Body>
class Planned {
 public:
  /// As `plan_of`. Throws Error where the device has not enough memory.
  template <class Make, class Rehearse>
  Planned(Device device, const Make& make, const Rehearse& rehearse)
      : memory_(std::make_unique<Memory>(plan_of(device.type, make, rehearse), device)),
        exec_(std::make_unique<Exec>(*memory_)),
        body_(new Body(make(*memory_))) {}

  Memory& memory() const { return *memory_; }
  /// For the body's programs.
  Exec& exec() const { return *exec_; }
  Body& operator*() const { return *body_; }
  Body* operator->() const { return body_.get(); }

 private:
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Exec> exec_;
  std::unique_ptr<Body> body_;  // last: it lives in the memory
};

}  // namespace llmz
