import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused
from programs import one_program

from keras_gen.core.calculus.gradient import gradient
from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.layers import AffineCoupling, Chain
from keras_gen.losses import ResidualLogLikelihood
from keras_gen.models import Flow

X = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
Y = X[:, :2] + np.random.default_rng(1).exponential(size=(64, 2)).astype("float32")
MU, SIGMA = np.array([0.3, -0.2]), np.array([0.5, 0.25])
PREDICTED = np.concatenate([MU, np.log(SIGMA)]).astype("float32")[None]


def make_flow(base="laplace", built=True):
    flow = Flow(Chain([AffineCoupling(units=[4], flip=flip) for flip in (False, True)]), base, seed=0, name="errors")
    if built:
        flow.build((None, 2))
    return flow


def regression(flow):
    """A model that predicts mu and log sigma, and trains the flow as one of its layers."""
    x = keras.Input((3,))
    mu, log_sigma = keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)
    model = keras.Model(x, keras.layers.Concatenate()([flow(mu), log_sigma]))
    model.compile(keras.optimizers.Adam(0.01), loss=ResidualLogLikelihood(flow))
    return model


def value_of(flow, y_true, y_pred, **options):
    loss = one_program(flow, ResidualLogLikelihood(flow, **options))
    return to_numpy(loss(ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)))


def test_an_untrained_flow_leaves_the_base():
    y = np.array([[0.5, 0.1]], "float32")
    laplace, normal = (value_of(make_flow(base), y, PREDICTED) for base in ("laplace", "normal"))
    assert laplace == pytest.approx(0.9068528, abs=1e-6)
    # Of the product of both densities of r, which is not normalized; 1 / sigma is in each of them, and once in it.
    assert laplace + normal - np.log(SIGMA).sum() == pytest.approx(3.5447299, abs=1e-6)


def test_the_density_integrates_to_one():
    flow = make_flow()
    randomize_weights(flow, scale=1.0)
    side, step = np.linspace(-10, 10, 501, retstep=True)
    grid = np.stack(np.meshgrid(side, side), axis=-1).astype("float32")
    predicted = np.broadcast_to(PREDICTED, (501, 501, 4)).copy()
    density = np.exp(-value_of(flow, grid, predicted, reduction="none").astype("float64"))
    laplace = np.exp(-(np.abs(grid - MU) / SIGMA).sum(-1)) / (4 * SIGMA.prod())
    assert density.shape == (501, 501)
    assert density.sum() * step**2 == pytest.approx(1, abs=1e-3)
    assert np.abs(density - laplace).sum() * step**2 > 1  # far from its start


def test_fit_trains_the_flow_and_files_keep_it(tmp_path):
    model = regression(make_flow(built=False))
    flow = model.get_layer("errors")
    before = [to_numpy(weight).copy() for weight in model.trainable_weights]
    losses = model.fit(X, Y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert len(before) == 4 + len(flow.trainable_weights) == 12
    pairs = zip(model.trainable_weights, before, strict=True)
    assert not [weight.path for weight, old in pairs if np.array_equal(to_numpy(weight), old)]

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    with pytest.raises(ValueError, match="`flow` must be .* compile a loaded model anew"):
        loaded.evaluate(X, Y, verbose=0)
    loaded.compile(loaded.optimizer, loss=ResidualLogLikelihood(loaded.get_layer("errors")))
    resumed, whole = (m.fit(X, Y, shuffle=False, verbose=0).history["loss"] for m in (loaded, model))
    np.testing.assert_allclose(resumed, whole, rtol=1e-6)


def test_loss_and_gradients_are_finite_at_the_edges():
    flow = make_flow()
    randomize_weights(flow)
    loss = ResidualLogLikelihood(flow)
    y = np.array([[0.3, -0.2], [1e6, -1e6], [0, 0], [0.3, 1]], "float32")
    predicted = np.array([[0.3, -0.2, 0, 0], [0, 0, 1e4, 9], [1, 1, -1e4, -50], [0.3, 0, 1e30, -1e30]], "float32")
    assert np.isfinite(value_of(flow, y, predicted))
    slopes = one_program(flow, lambda y, predicted: gradient(lambda given: loss.call(y, given), predicted))
    assert np.isfinite(to_numpy(slopes(ops.convert_to_tensor(y), ops.convert_to_tensor(predicted)))).all()


def test_refused():
    three, conditional = make_flow(built=False), make_flow(built=False)
    three.build((None, 3))
    conditional.build((None, 2), (None, 5))
    right = np.zeros((4, 2)), np.zeros((4, 4))

    def call(flow, y_true=right[0], y_pred=right[1]):
        return lambda: ResidualLogLikelihood(flow)(y_true, y_pred)

    lines = not_refused(
        [
            ("no flow", call("laplace"), "`flow` must be a keras_gen.models.Flow. Received: flow='laplace'"),
            ("a bijector", call(make_flow().bijector), "`flow` must be a keras_gen.models.Flow"),
            (
                "unbuilt",
                call(make_flow(built=False)),
                r"`flow` must be a layer of the model, `flow\(mu\)`, .*Received: flow=an unbuilt",
            ),
            ("three", call(three), r"`flow` must be an unconditional density of shape \(2,\). Received: .* of \(3,\)"),
            ("conditional", call(conditional), r"`flow` must be an unconditional .* condition \(5,\)"),
            (
                "odd",
                call(make_flow(), y_pred=np.zeros((4, 3))),
                r"`y_pred` must have shape .* 2 D\).*Received: .*4, 3\)",
            ),
            ("no axis", call(make_flow(), y_pred=np.zeros(4)), "`y_pred` must have shape"),
            ("wide", call(make_flow(), np.zeros((4, 4))), r"`y_true` must have shape \(4, 2\), .*Received: .*\(4, 4\)"),
            ("rank", call(make_flow(), np.zeros((4, 1, 2))), r"`y_true` must have shape \(4, 2\)"),
            ("batch", call(make_flow(), np.zeros((1, 2))), r"`y_true` must have shape \(4, 2\)"),
        ]
    )
    assert not lines, "\n".join(lines)
