"""The kinds of misbehaviour of a method: what its body does, as source text of a module of its own."""

HEAD = """
import ctypes, os, signal, subprocess, sys, threading, time
import numpy, torch
CALLS, KEPT = [], []


def gradient(model, images, targets):
    images = images.detach().clone().requires_grad_()
    return torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)[0]


def bad(model, images, targets{more}):
    CALLS.append(1)
    # the calls before are those in which efface tries the method; a worker does not try it
    late = len(CALLS) > (1 if '__mp_main__' in sys.modules else 6)
{body}
    return gradient(model, images, targets)
"""

KINDS = {
    # it ends otherwise than by its maps
    "raises late": "if late: raise RuntimeError('out of luck')",
    "raises a group": "if late: raise ExceptionGroup('many', [ValueError('a'), KeyError('b')])",
    "raises a class that has no text": "class Odd(Exception): __str__ = lambda self: 1 / 0\nif late: raise Odd",
    "raises StopIteration": "if late: raise StopIteration",
    "raises KeyboardInterrupt": "if late: raise KeyboardInterrupt",
    "raises GeneratorExit": "if late: raise GeneratorExit('x')",
    "raises MemoryError": "if late: raise MemoryError",
    "recurses": "if late: return bad(model, images, targets)",
    "asserts": "assert not late",
    "exits late": "if late: sys.exit(0)",
    "exits at once": "sys.exit(3)",
    "exits hard late": "if late: os._exit(0)",
    "crashes late": "if late: ctypes.string_at(0)",
    "loops at once": "while True: pass",
    "loops late": "while late: pass",
    "sleeps late": "if late: time.sleep(3600)",
    # its maps are wrong
    "NaN late": "m = gradient(model, images, targets)\nif late: m[0, 0, 0, 0] = float('nan')\nreturn m",
    "infinite late": "m = gradient(model, images, targets)\nif late: m[-1] = float('inf')\nreturn m",
    "another shape late": "m = gradient(model, images, targets)\nreturn m[:, :, :-1] if late else m",
    "fewer rows late": "m = gradient(model, images, targets)\nreturn m[:-1] if late else m",
    "huge maps": "return torch.zeros(len(images), 1, 20000, 2000)",
    "complex": "m = gradient(model, images, targets)\nreturn torch.complex(m, m)",
    "booleans": "return gradient(model, images, targets) > 0",
    "NumPy": "return gradient(model, images, targets).numpy()",
    "half precision": "return gradient(model, images, targets).half()",
    "overflow": "return gradient(model, images, targets).double() * 1e300",
    "sparse": "return gradient(model, images, targets).to_sparse()",
    "meta device": "return gradient(model, images, targets).to('meta')",
    "text": "return 'maps'",
    "nothing late": "if late: return None",
    "a list": "return [each for each in gradient(model, images, targets)]",
    "constant": "return torch.ones_like(images)",
    # it changes the network
    "changes the weights": "with torch.no_grad():\n    for p in model.parameters(): p.add_(0.05)",
    "changes the weights by data": "for p in model.parameters(): p.data.mul_(1.1)",
    "changes a buffer": "for name, b in model.named_buffers():\n    if b.is_floating_point(): b.mul_(1.5)",
    "trains BatchNorm": "model.train()",
    "leaves training mode": "m = gradient(model, images, targets)\nmodel.train()\nreturn m",
    "leaves a hook": "c = next(x for x in model.modules() if isinstance(x, torch.nn.Conv2d))\n"
    "c.register_forward_hook(lambda a, b, c: c * 2)",
    "leaves a hook on all modules": "torch.nn.modules.module.register_module_forward_hook("
    "lambda a, b, c: c * 1.5 if isinstance(c, torch.Tensor) else c)",
    "replaces a module": "name, x = next(iter(model.named_children()))\n"
    "setattr(model, name, torch.nn.Sequential(x, torch.nn.Tanh()))",
    "replaces forward": "old = type(model).forward\nmodel.forward = lambda x: -old(model, x)",
    "replaces forward of the class": "old = type(model).forward\n"
    "type(model).forward = lambda self, x: old(self, x) * -1",
    "replaces forward of ReLU": "torch.nn.ReLU.forward = lambda self, x: x",
    "makes it double": "model.double()\nimages = images.double()",
    "freezes it": "m = gradient(model, images, targets)\nmodel.requires_grad_(False)\nreturn m",
    # it changes what it is given
    "changes images in place": "images.zero_()",
    "changes targets in place": "m = gradient(model, images, targets)\ntargets.fill_(3)\nreturn m",
    "changes seeds in place": "m = gradient(model, images, targets)\nseeds.zero_()\nreturn m",
    # it changes the process
    "seeds torch": "torch.manual_seed(time.time_ns() % 2**32)",
    "seeds NumPy": "numpy.random.seed(0)",
    "gradients off": "m = gradient(model, images, targets)\ntorch.set_grad_enabled(False)\nreturn m",
    "default dtype": "m = gradient(model, images, targets)\ntorch.set_default_dtype(torch.float64)\nreturn m",
    "deterministic algorithms": "torch.use_deterministic_algorithms(True)",
    "threads of torch": "torch.set_num_threads(3)",
    "errors of NumPy": "numpy.seterr(all='raise')",
    "another folder": "os.makedirs('elsewhere', exist_ok=True)\nos.chdir('elsewhere')",
    "signal handlers": "for each in (signal.SIGINT, signal.SIGTERM): signal.signal(each, signal.SIG_IGN)",
    "an alarm": "signal.setitimer(signal.ITIMER_REAL, 0.3)",
    "closes stderr": "os.close(2)",
    "replaces stdout": "sys.stdout = None",
    "prints a lot": "print('x' * 2_000_000)",
    "warns": "import warnings\nwarnings.simplefilter('error')\nwarnings.warn('mine') if late else None",
    "environment": "os.environ.clear()",
    "leaves a thread": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "leaves a daemon": "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
    "leaves a thread that changes weights": "def change():\n    time.sleep(0.2)\n"
    "    for p in model.parameters(): p.data.add_(0.5)\nthreading.Thread(target=change).start()",
    "sends itself TERM late": "if late: os.kill(os.getpid(), signal.SIGTERM)",
    "interrupts its main thread late": "if late: __import__('_thread').interrupt_main()",
    "closes all files late": "if late: os.closerange(3, 200)",
    "leaves a process": "subprocess.Popen(['sleep', '60'])",
    "keeps the graph": "images = images.clone().requires_grad_()\ny = model(images).sum()\nKEPT.append(y)\n"
    "return torch.autograd.grad(y, images, create_graph=True)[0]",
    "patches torch": "torch.Tensor.abs = lambda self: self",
    "empties another's maps": "for p in __import__('glob').glob('run/maps/random-test.h5'): open(p, 'w').close()",
}


def module_of(kind: str) -> str:
    """The source of a module with the method `bad` of this kind."""
    body = "\n".join(f"    {line}" for line in KINDS[kind].splitlines())
    return HEAD.format(body=body, more=", *, seeds" if kind == "changes seeds in place" else "")
