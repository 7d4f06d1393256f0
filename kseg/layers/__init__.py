"""The layers of the models; importing this registers all of them for `.keras` files."""

from kseg.layers.normalization import BatchNormalization as BatchNormalization
from kseg.layers.normalization import ScaledL2Normalization as ScaledL2Normalization
from kseg.layers.pooling import MaxPooling2DWithArgmax as MaxPooling2DWithArgmax
from kseg.layers.pooling import MaxUnpooling2D as MaxUnpooling2D
from kseg.layers.preprocessing import Preprocess as Preprocess
from kseg.layers.pyramid import Pyramid as Pyramid
from kseg.layers.spatial_pyramid import SpatialPyramidPooling as SpatialPyramidPooling
from kseg.layers.upsampling import BilinearInitializer as BilinearInitializer
from kseg.layers.upsampling import UpSampling2D as UpSampling2D
